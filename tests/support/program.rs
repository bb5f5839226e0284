//! The real program in a folder of its own, and `openssl` beside it.

#![allow(dead_code)] // each test uses its part

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// The most that a test waits for the program.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder, gone with the test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// All files below, with what is in them, by path.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(self.0.path(), &mut files);
        files.sort();
        files
    }

    /// A command that runs in the folder, with nothing of `FOREBAY_*` in its environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOREBAY_")) {
            command.env_remove(name);
        }
        command
    }

    /// Words separated by spaces: `forebay pki init --dir certs`, `openssl verify …`, `sh -c …` by `command`.
    pub fn run(&self, line: &str) -> Output {
        let (program, arguments) = line.split_once(' ').expect("a program and its arguments");
        let program = if program == "forebay" {
            env!("CARGO_BIN_EXE_forebay")
        } else {
            program
        };
        self.command(program)
            .args(arguments.split(' '))
            .output()
            .unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Runs the line and returns its output; it must exit with 0.
    pub fn succeed(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", text(&output));
        text(&output)
    }

    /// Runs the line and returns its output; it must exit with `code`.
    pub fn fail(&self, line: &str, code: i32) -> String {
        let output = self.run(line);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{line}: {}",
            text(&output)
        );
        text(&output)
    }
}

fn collect(dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push((path.clone(), fs::read(path).expect("a file")));
        }
    }
}

/// All that was printed.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A program that runs until it is told to stop.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Its lines on stdout are read as they come.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = read_lines(child.stdout.take().expect("its stdout"));
        Self { child, lines }
    }

    /// The next line that starts so.
    pub fn line(&self, start: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .expect("the line comes before the end");
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// Sends SIGTERM and waits for the exit.
    pub fn terminate(mut self) -> ExitStatus {
        let kill = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(kill.expect("kill runs").success());
        // Its stdout ends with the program: a wait that has a bound.
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().expect("the exit status")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    const LINES_MAX: usize = 1024;
    let (sender, lines) = sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
