//! A disk in memory that fails as disks do, from a seed.
//!
//! A crash keeps any subset of the sectors and names that were not synced, and tears sectors. A
//! sync that fails keeps a subset too and then calls everything clean, as Linux does, while readers
//! may see the lost bytes or not. Writes stop half-way, reads and folders fail, bits flip, folders
//! vanish. To sync a descriptor again whose sync has failed is a breach of the contract.

mod flip;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::spool::disk::{Disk, DiskFile, FolderEntry};

const SECTOR_BYTES: usize = 512;

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<Sim>>);

struct Sim {
    random: Random,
    files: Vec<SimFile>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
    /// Failures of a hundred operations that change something.
    write_faults: u64,
    read_faults: u64,
}

#[derive(Default)]
struct SimFile {
    seen: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

pub(crate) struct SimHandle {
    disk: SimDisk,
    file: usize,
    sync_failed: Cell<bool>,
}

fn error(random: &mut Random) -> io::Error {
    let kinds = [
        io::ErrorKind::Other,
        io::ErrorKind::StorageFull,
        io::ErrorKind::ReadOnlyFilesystem,
    ];
    kinds[random.below(3) as usize].into()
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Sim {
            random: Random(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            folders: BTreeSet::new(),
            write_faults: 0,
            read_faults: 0,
        };
        Self(Arc::new(Mutex::new(sim)))
    }

    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set_faults(&self, write_percent: u64, read_percent: u64) {
        let mut sim = self.sim();
        (sim.write_faults, sim.read_faults) = (write_percent, read_percent);
    }

    /// Stops the machine and starts it again.
    pub(crate) fn crash(&self) {
        let sim = &mut *self.sim();
        for file in &mut sim.files {
            file.crash(&mut sim.random);
        }
        let paths: BTreeSet<PathBuf> = sim
            .names
            .keys()
            .chain(sim.durable_names.keys())
            .cloned()
            .collect();
        for path in paths {
            let (seen, durable) = (
                sim.names.get(&path).copied(),
                sim.durable_names.get(&path).copied(),
            );
            let kept = if sim.random.chance(50) { seen } else { durable };
            match kept {
                Some(file) => drop(sim.names.insert(path.clone(), file)),
                None => drop(sim.names.remove(&path)),
            }
        }
        sim.durable_names = sim.names.clone();
    }

    /// Flips a bit somewhere in a file, not in the second copy of a segment's header. Says whether
    /// there was one.
    pub(crate) fn flip(&self) -> bool {
        let sim = &mut *self.sim();
        let files: Vec<(&PathBuf, &usize)> = sim
            .names
            .iter()
            .filter(|(_, file)| !sim.files[**file].seen.is_empty())
            .collect();
        let Some(&(path, &file)) = files.get(sim.random.below(files.len() as u64) as usize) else {
            return false;
        };
        // Most of a cursor's file is room that it does not need yet.
        let bytes_max = if path.ends_with("cursor-0") || path.ends_with("cursor-1") {
            SECTOR_BYTES
        } else {
            usize::MAX
        };
        let file = &mut sim.files[file];
        let at = sim.random.below(file.seen.len().min(bytes_max) as u64) as usize;
        if (4096..8192).contains(&at) {
            return false;
        }
        let bit = 1 << sim.random.below(8);
        file.seen[at] ^= bit;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= bit;
        }
        true
    }

    pub(crate) fn remove_folder(&self, dir: &Path) {
        let sim = &mut *self.sim();
        sim.names.retain(|path, _| !path.starts_with(dir));
        sim.durable_names.retain(|path, _| !path.starts_with(dir));
        sim.folders.retain(|path| !path.starts_with(dir));
    }

    /// Returns the bytes that the segments of a folder take.
    pub(crate) fn segment_bytes(&self, dir: &Path) -> u64 {
        let entries = self.list(dir).unwrap_or_default();
        entries
            .iter()
            .filter(|entry| entry.name.ends_with(".spool"))
            .map(|entry| entry.bytes)
            .sum()
    }

    fn change(&self) -> io::Result<MutexGuard<'_, Sim>> {
        let mut sim = self.sim();
        let faults = sim.write_faults;
        if sim.random.chance(faults) {
            Err(error(&mut sim.random))
        } else {
            Ok(sim)
        }
    }

    fn look(&self) -> io::Result<MutexGuard<'_, Sim>> {
        let mut sim = self.sim();
        let faults = sim.read_faults;
        if sim.random.chance(faults) {
            Err(error(&mut sim.random))
        } else {
            Ok(sim)
        }
    }

    fn handle(&self, file: usize) -> SimHandle {
        SimHandle {
            disk: self.clone(),
            file,
            sync_failed: Cell::new(false),
        }
    }
}

impl SimFile {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty
            .extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }

    /// Takes a subset of the dirty sectors to the disk, some of them torn.
    fn persist_some(&mut self, random: &mut Random) {
        if random.chance(50) {
            self.durable.resize(self.seen.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR_BYTES;
            let kept = match random.below(3) {
                0 => 0,
                1 => SECTOR_BYTES,
                _ => random.below(SECTOR_BYTES as u64) as usize,
            };
            let end = (start + kept).min(self.seen.len()).min(self.durable.len());
            if start < end {
                self.durable[start..end].copy_from_slice(&self.seen[start..end]);
            }
        }
    }

    fn crash(&mut self, random: &mut Random) {
        self.persist_some(random);
        self.seen.clone_from(&self.durable);
    }

    fn sync(&mut self) {
        self.durable.resize(self.seen.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let (start, end) = (
                sector * SECTOR_BYTES,
                ((sector + 1) * SECTOR_BYTES).min(self.seen.len()),
            );
            if start < end {
                self.durable[start..end].copy_from_slice(&self.seen[start..end]);
            }
        }
    }

    fn set_len(&mut self, bytes: usize) {
        let before = self.seen.len();
        self.seen.resize(bytes, 0);
        self.touch(before.min(bytes), before.max(bytes));
    }
}

impl Disk for SimDisk {
    type File = SimHandle;

    fn claim(&self, dir: &Path) -> io::Result<()> {
        self.change()?.folders.insert(dir.to_owned());
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<SimHandle> {
        let mut sim = self.change()?;
        if sim.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| sim.folders.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        sim.files.push(SimFile::default());
        let file = sim.files.len() - 1;
        sim.names.insert(path.to_owned(), file);
        Ok(self.handle(file))
    }

    fn open(&self, path: &Path) -> io::Result<SimHandle> {
        let file = self.look()?.names.get(path).copied();
        file.map(|file| self.handle(file))
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn open_to_write(&self, path: &Path) -> io::Result<SimHandle> {
        let file = self.change()?.names.get(path).copied();
        file.map(|file| self.handle(file))
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FolderEntry>> {
        let sim = self.look()?;
        let inside = sim
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, file): (&PathBuf, &usize)| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            FolderEntry {
                name,
                bytes: sim.files[*file].seen.len() as u64,
            }
        };
        Ok(inside.map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut sim = self.change()?;
        let file = sim.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        sim.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.change()?.names.remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, dir: &Path) -> io::Result<()> {
        let sim = &mut *self.change()?;
        sim.durable_names
            .retain(|path, _| path.parent() != Some(dir));
        let inside = sim
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        sim.durable_names
            .extend(inside.map(|(path, file)| (path.clone(), *file)));
        Ok(())
    }
}

impl DiskFile for SimHandle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let sim = self.disk.look()?;
        let rest = sim.files[self.file]
            .seen
            .get(offset as usize..)
            .unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let sim = &mut *self.disk.sim();
        let (fails, some) = (
            sim.random.chance(sim.write_faults),
            sim.random.below(bytes.len() as u64) as usize,
        );
        let written = if fails { some } else { bytes.len() };
        let (file, start) = (&mut sim.files[self.file], offset as usize);
        let end = start + written;
        let before = file.seen.len();
        file.seen.resize(before.max(end), 0);
        file.seen[start..end].copy_from_slice(&bytes[..written]);
        file.touch(start.min(before), end);
        if fails && sim.random.chance(80) {
            Err(error(&mut sim.random))
        } else {
            Ok(written)
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.change()?.files[self.file].set_len(bytes as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        assert!(
            !self.sync_failed.get(),
            "a descriptor is synced again whose sync has failed"
        );
        let sim = &mut *self.disk.sim();
        let file = &mut sim.files[self.file];
        if !sim.random.chance(sim.write_faults) {
            file.sync();
            return Ok(());
        }
        self.sync_failed.set(true);
        file.persist_some(&mut sim.random);
        if sim.random.chance(50) {
            file.seen.clone_from(&file.durable);
        }
        Err(error(&mut sim.random))
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.look()?.files[self.file].seen.len() as u64)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self
            .disk
            .sim()
            .names
            .values()
            .any(|file| *file == self.file))
    }
}
