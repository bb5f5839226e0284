//! The command line of the real program: its help, `forebay check`, and what it says of a wrong configuration.

#[path = "support/program.rs"]
mod program;

use std::process::{Command, Output, Stdio};

use forebay::internals::config::VARIABLES;
use program::{Folder, text};

const REQUIRED: [(&str, &str); 3] = [
    ("FOREBAY_TLS_CERT", "a.pem"),
    ("FOREBAY_TLS_KEY", "b.pem"),
    ("FOREBAY_TLS_CLIENT_CA", "c.pem"),
];

/// `forebay` with these arguments and nothing in its environment but these.
fn forebay(arguments: &str, environment: &[(&str, &str)]) -> Output {
    let folder = Folder::new();
    let mut command = folder.command(env!("CARGO_BIN_EXE_forebay"));
    command
        .args(arguments.split(' '))
        .env_clear()
        .envs(environment.iter().copied());
    command.output().expect("the program runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_help_of_serve_lists_every_variable_in_its_group() {
    let output = forebay("serve --help", &[("COLUMNS", "500")]);
    assert!(output.status.success());
    let help = out(&output);
    for variable in VARIABLES {
        let flag = format!("--{} <VALUE>", variable.flag());
        let line = help
            .lines()
            .find(|line| line.trim_start().starts_with(&flag))
            .unwrap_or_else(|| panic!("{flag}"));
        assert!(
            line.contains(variable.meaning) && line.ends_with(&format!("[{}]", variable.name)),
            "{line}"
        );
        assert!(
            help.contains(&format!("\n{}:\n", variable.group)),
            "{}",
            variable.group
        );
    }
}

#[test]
fn check_prints_what_is_in_force_and_where_it_comes_from() {
    let environment = [
        &REQUIRED[..],
        &[("FOREBAY_ACK", "queued"), ("FOREBAY_BATCH_LINGER", "7ms")],
    ]
    .concat();
    let output = forebay("check --batch-linger 9ms --sink=null", &environment);
    assert!(output.status.success(), "{}", text(&output));
    let shown = out(&output);
    for line in [
        "FOREBAY_TLS_CERT=a.pem # environment",
        "FOREBAY_ACK=queued # environment",
        "FOREBAY_BATCH_LINGER=9ms # flag",
        "FOREBAY_SINK=null # flag",
        "FOREBAY_DEVICE_RATE=50 # default",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} is not in:\n{shown}"
        );
    }
    assert_eq!(err(&output), "");
}

#[test]
fn any_librdkafka_property_is_a_flag_and_secrets_are_not_shown() {
    let environment = [&REQUIRED[..], &[("FOREBAY_KAFKA_CLIENT_ID", "edge")]].concat();
    let flags = "--kafka-bootstrap-servers broker:9092 --kafka-sasl-password=hunter2 --kafka-client-id dock";
    let output = forebay(&format!("check --sink kafka {flags}"), &environment);
    let shown = text(&output);
    assert_eq!(output.status.success(), cfg!(feature = "kafka"), "{shown}");
    assert!(
        shown.contains("FOREBAY_KAFKA_BOOTSTRAP_SERVERS=broker:9092 # flag\n"),
        "{shown}"
    );
    assert!(
        shown.contains("FOREBAY_KAFKA_CLIENT_ID=dock # flag\n"),
        "{shown}"
    );
    assert!(
        shown.contains("FOREBAY_KAFKA_SASL_PASSWORD=(redacted) # flag\n"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    for wrong in ["check --kafka-client-id", "check --kafkaclient-id x"] {
        assert_eq!(forebay(wrong, &REQUIRED).status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let environment = [
        ("FOREBAY_TLS_CERT", "a.pem"),
        ("FOREBAY_TLS_KEY", "b.pem"),
        ("FOREBAY_LINGER", "1s"),
    ];
    for command in ["check", "serve"] {
        let output = forebay(&format!("{command} --body-timeout 30"), &environment);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = err(&output);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(
            lines[0].starts_with("FOREBAY_LINGER: unknown variable; did you mean FOREBAY_"),
            "{said}"
        );
        assert!(
            lines[1].starts_with("FOREBAY_TLS_CLIENT_CA: must be set; write it like"),
            "{said}"
        );
        assert!(
            lines[2].starts_with("FOREBAY_BODY_TIMEOUT: \"30\" has no unit"),
            "{said}"
        );
    }
}

#[test]
fn a_filter_that_would_silence_the_log_is_found_by_check_too() {
    for command in ["check", "serve"] {
        let output = forebay(&format!("{command} --log inof"), &REQUIRED);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(
            err(&output).starts_with("FOREBAY_LOG: `inof` is no level: write "),
            "{}",
            err(&output)
        );
    }
}

#[test]
fn check_may_be_piped_into_a_reader_that_stops() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command
        .arg("check")
        .env_clear()
        .envs(REQUIRED)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(
        (output.status.code(), err(&output)),
        (Some(0), String::new())
    );
}

#[cfg(target_os = "linux")]
#[test]
fn workers_and_connections_follow_from_what_the_process_may_use() {
    let folder = Folder::new();
    let mut shell = folder.command("sh");
    let line = format!(
        "ulimit -n 200 && exec taskset -c 0 {} check",
        env!("CARGO_BIN_EXE_forebay")
    );
    let output = shell
        .args(["-c", &line])
        .envs(REQUIRED)
        .output()
        .expect("sh runs");
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.contains("FOREBAY_WORKERS=1 # default: the cores it may use\n"),
        "{shown}"
    );
    assert!(
        shown.contains("FOREBAY_CONNECTIONS_MAX=150 # default: "),
        "{shown}"
    );
}
