//! The schema of a stream: compiled once, from its file and others of its folder, and from nowhere
//! else.
//!
//! The validator belongs to others; held here is where it may read, which dialects it may take,
//! and what an attacker's text may cost it: an expression that has to backtrack gives up after
//! [`BACKTRACKS_MAX`] steps, and what it was asked about is a violation.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value as Plain;

use super::instance::Tree;
use super::sources::Sources;
use super::value::Value;
use crate::record::HEADERS_BYTES_MAX;

/// Steps of one regular expression; those without look-around and back-references need none.
pub(super) const BACKTRACKS_MAX: usize = 10_000;

/// A location in a schema is cut to so many bytes; a schema that refers to itself makes long ones.
const LOCATION_BYTES_MAX: usize = 1024;

const _: () = assert!(LOCATION_BYTES_MAX < HEADERS_BYTES_MAX); // it is a record's header

#[derive(Debug)]
pub(super) struct Schema(Validator<Tree>);

impl Schema {
    /// Compiles a schema file. An error is a reason that names the file.
    pub(super) fn compile(file: &Path, sources: &Arc<Sources>) -> Result<Self, String> {
        let fault = |reason: String| format!("{}: {reason}", file.display());
        let schema = read(file, sources).map_err(fault)?;
        let folder = Folder::of(file, &schema, sources.clone());
        let options = jsonschema::options_for::<Tree>()
            .with_base_uri(uri_of(
                &folder.path.join(file.file_name().unwrap_or_default()),
            ))
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS_MAX))
            .with_retriever(folder);
        let built = options.build(&schema);
        let told = built.map_err(|error| match error.instance_path().as_str() {
            "" => error.to_string(),
            place => format!("at {place}: {error}"),
        });
        told.map(Self).map_err(fault)
    }

    /// Finds the place in the schema at which the record is at fault: the evaluation path of the
    /// first keyword that it does not satisfy.
    pub(super) fn violation(&self, record: &Value<'_>) -> Option<Arc<str>> {
        if self.0.is_valid(record) {
            return None;
        }
        let Err(error) = self.0.validate(record) else {
            debug_assert!(false, "the validator is of one mind");
            return Some(Arc::default());
        };
        let location = error.evaluation_path().as_str();
        debug_assert!(
            location.is_empty() || location.starts_with('/'),
            "a JSON Pointer"
        );
        let end = location.floor_char_boundary(LOCATION_BYTES_MAX);
        Some(location[..end].into())
    }
}

/// Reads one document of a schema.
fn read(file: &Path, sources: &Sources) -> Result<Plain, String> {
    let bytes = sources.read(file)?;
    let schema: Plain = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match schema.get("$schema") {
        Some(Plain::String(_)) if Draft::default().detect(&schema) != Draft::Unknown => Ok(schema),
        None => Ok(schema),
        Some(dialect) => Err(format!(
            "at /$schema: {dialect} is no dialect that is known: it is \
             \"https://json-schema.org/draft/2020-12/schema\", or that of 2019-09, draft-07, draft-06 or draft-04"
        )),
    }
}

/// The folder of a schema file: what the schema refers to is there.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// The URIs that the folder has: its own and, where the schema names itself, that of its
    /// `$id`.
    uris: Vec<String>,
    sources: Arc<Sources>,
}

impl Folder {
    fn of(file: &Path, schema: &Plain, sources: Arc<Sources>) -> Self {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let path = file.parent().unwrap_or(Path::new("/")).to_owned();
        let id = schema.get("$id").or_else(|| schema.get("id"));
        let id = id.and_then(Plain::as_str).and_then(folder_of);
        let own = format!("{}/", uri_of(&path).trim_end_matches('/'));
        let uris = [Some(own), id].into_iter().flatten().collect();
        Self {
            path,
            uris,
            sources,
        }
    }

    /// The file that a URI names; `None` for one outside of the folder.
    fn file(&self, uri: &str) -> Option<PathBuf> {
        debug_assert!(
            self.uris.iter().all(|folder| folder.ends_with('/')),
            "no name goes on"
        );
        let mut uris = self.uris.iter();
        let name = uris.find_map(|folder| uri.strip_prefix(folder.as_str()))?;
        let name = decoded(name)?;
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        let is_within = name.split('/').all(is_plain);
        is_within.then(|| self.path.join(name))
    }
}

impl Retrieve for Folder {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Plain, Box<dyn Error + Send + Sync>> {
        let Some(file) = self.file(uri.as_str()) else {
            return Err("a $ref leads to files of the schema's folder only".into());
        };
        let document = read(&file, &self.sources);
        document.map_err(|reason| format!("{}: {reason}", file.display()).into())
    }
}

/// The folder of an absolute URI, with the slash at its end.
fn folder_of(id: &str) -> Option<String> {
    let (_, rest) = id.split_once("://")?;
    let end = id.len() - rest.len() + rest.rfind('/')?;
    Some(id[..=end].to_owned())
}

fn uri_of(path: &Path) -> String {
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// A part of a URI without its escapes; `None` where those are none.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = behind;
            continue;
        }
        let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).ok()
}
