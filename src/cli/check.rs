//! `forebay check`: is the configuration sound, and what is it?
//!
//! Prints every setting with its source, and builds what can be built without files or network.
//! `--files` reads what `serve` would read and looks at what it would write; `--connect` asks the
//! sink for each stream. Changes nothing. Exit code 2 for a configuration that is wrong, 1 for
//! files or a sink that are.

use std::fs::{self, OpenOptions};
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::runtime::{Builder, LocalOptions};

use super::{environment, flags, given, say, start_log, wrong};
use crate::config::{
    Config, ConfigErrors, FileConfig, JournalTarget, Raw, SinkConfig, raise_open_file_limit,
};
use crate::devices::DevicesFile;
use crate::gateway::{check_rules, sink_options};
use crate::record::{StreamIndex, Timestamp};
use crate::sink::Sink;
use crate::spool::{self, Keys};
use crate::tls::Reloader;

const FILES: &str = "files";
const CONNECT: &str = "connect";

pub(crate) fn command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    Command::new("check")
        .about("Print the effective configuration and where it comes from, and look whether it is sound")
        .args(flags(&[]))
        .args([
            switch(FILES, "read certificates, keys and lists, and look at spool, folders and rights"),
            switch(CONNECT, "ask the sink for each stream: is it there, and does it take the largest reading"),
        ])
}

pub(crate) fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    raise_open_file_limit();
    let (raw, _) = Raw::new(environment(), given(arguments));
    say(raw.describe().trim_end());
    let loaded = Config::load(environment(), given(arguments));
    let checked = loaded.and_then(|config| start_log(&config).map(|()| config));
    let config = match checked {
        Ok(config) => config,
        Err(errors) => return Ok(wrong(&errors)),
    };
    if let Err(fault) = build(&config) {
        return Ok(wrong(&ConfigErrors(vec![format!("{fault:#}")])));
    }
    let mut faults = Vec::new();
    if arguments.get_flag(FILES) {
        faults.extend(faults_of_files(&config));
    }
    if arguments.get_flag(CONNECT) {
        faults.extend(faults_of_sink(&config)?);
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    Ok(match faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Builds what can be built without files or network.
fn build(config: &Config) -> anyhow::Result<()> {
    let unknown = wait_for(Sink::check(&config.sink, &sink_options(config), false))??;
    if let Some(unknown) = unknown {
        say(&format!("# {unknown}"));
    }
    Ok(())
}

/// Lists the faults of files and folders, a line each.
fn faults_of_files(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let mut look = |what: &str, looked: anyhow::Result<()>| {
        if let Err(fault) = looked {
            faults.push(format!("{what}: {fault:#}"));
        }
    };
    look("TLS", look_at_tls(config));
    if let Some(spool) = &config.spool {
        look("FOREBAY_SPOOL_DIR", look_at_folder(&spool.dir));
        match spool.key_file.as_deref().map(Keys::read).transpose() {
            Ok(keys) => look("FOREBAY_SPOOL_DIR", look_at_spool(&spool.dir, keys)),
            Err(error) => look("FOREBAY_SPOOL_KEY_FILE", Err(error.into())),
        }
    }
    look("FOREBAY_STREAM_RULES", check_rules(config));
    look("FOREBAY_SINK", look_at_sink(config));
    if let SinkConfig::File(file) = &config.sink {
        look("FOREBAY_FILE_DIR", look_at_folder(&file.dir));
    }
    look("FOREBAY_AUDIT_LOG", look_at_log(config.audit_log.as_ref()));
    let access_log = config.access_log.as_ref().map(|log| &log.target);
    look("FOREBAY_ACCESS_LOG", look_at_log(access_log));
    faults
}

/// Reads what lies in the spool as far as that this program and these keys can be told to fit.
fn look_at_spool(dir: &Path, keys: Option<Keys>) -> anyhow::Result<()> {
    spool::look(dir, &keys.unwrap_or_default())?;
    Ok(())
}

/// Builds the sink's client of its settings and of the files that they name.
fn look_at_sink(config: &Config) -> anyhow::Result<()> {
    wait_for(Sink::check(&config.sink, &sink_options(config), true))??;
    Ok(())
}

/// Reads the files of TLS, and tells when what they hold ends.
fn look_at_tls(config: &Config) -> anyhow::Result<()> {
    let devices = DevicesFile::start(config.devices_file.clone());
    let devices = devices.context("FOREBAY_DEVICES_FILE")?;
    let reloader = Reloader::start(config.tls.clone(), devices.subscribe())?;
    let (certificate, ends) = (reloader.certificate(), reloader.ends());
    let all = [
        ("server certificate", Some(certificate.not_after)),
        ("first authority", Some(ends.authority)),
        ("first revocation list", ends.list),
    ];
    say(&format!(
        "# names of the server: {}",
        certificate.names.join(", ")
    ));
    let now = Timestamp::now();
    let mut ended = Vec::new();
    for (what, end) in all {
        let Some(end) = end else { continue };
        say(&format!("# {what} until {}", end.rfc3339()));
        if end <= now {
            ended.push(what);
        }
    }
    ensure!(ended.is_empty(), "past its end: {}", ended.join(", "));
    Ok(())
}

/// Whether files can be made in a folder, or the folder itself, where it is not there.
fn look_at_folder(dir: &Path) -> anyhow::Result<()> {
    let there = dir.ancestors().find(|folder| folder.exists());
    let folder = there.filter(|there| !there.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let probe = folder.join(format!(".forebay-check-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&probe);
    made.with_context(|| format!("nothing can be written in {}", folder.display()))?;
    fs::remove_file(&probe).with_context(|| format!("{} cannot be removed", probe.display()))
}

fn look_at_log(target: Option<&JournalTarget>) -> anyhow::Result<()> {
    let Some(JournalTarget::File(file)) = target else {
        return Ok(());
    };
    if file.exists() {
        let opened = OpenOptions::new().append(true).open(file);
        opened.with_context(|| format!("{} cannot be written", file.display()))?;
        return Ok(());
    }
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            bail!("there is no folder {}", folder.display())
        }
        Some(folder) => look_at_folder(folder),
        None => bail!("{} is no file", file.display()),
    }
}

/// Asks the sink for each stream; says what is wrong, a line each.
fn faults_of_sink(config: &Config) -> anyhow::Result<Vec<String>> {
    let answers = match &config.sink {
        SinkConfig::File(file) => look_at_streams(config, file),
        _ => ask_sink(config)?,
    };
    let mut faults = Vec::new();
    for (stream, answer) in config.streams.iter().zip(answers) {
        match answer {
            Ok(()) => say(&format!("# stream {}: it is there", stream.name)),
            Err(fault) => faults.push(format!("stream {}: {fault:#}", stream.name)),
        }
    }
    Ok(faults)
}

/// Looks at the folders of a file sink, which is not opened: that is to own its folder, which a
/// gateway that serves does, and to mend what is there.
fn look_at_streams(config: &Config, file: &FileConfig) -> Vec<anyhow::Result<()>> {
    let streams = config.streams.iter();
    let looked = streams.map(|stream| look_at_folder(&file.dir.join(&stream.name)));
    looked.collect()
}

fn ask_sink(config: &Config) -> anyhow::Result<Vec<anyhow::Result<()>>> {
    let streams = (0..config.streams.len()).map(|index| StreamIndex(index as u16));
    let streams: Vec<_> = streams.collect();
    let answers = wait_for(async {
        let sink = Sink::open(&config.sink, sink_options(config), |_| {}).await?;
        anyhow::Ok(sink.verify(&streams).await)
    })??;
    let answers = answers.into_iter();
    Ok(answers.map(|answer| answer.map_err(Into::into)).collect())
}

fn wait_for<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    Ok(runtime.block_on(future))
}
