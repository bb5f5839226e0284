//! `forebay pki`: an authority, its certificates, its revocations. Prints what it has written.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use super::say;
use crate::pki::{
    Authority, Days, FLEET_DEVICES_MAX, Folder, KeyKind, PkiError, Serial, ServerName,
};
use crate::record::DeviceId;

/// As `--key` has it.
const RSA: &str = "rsa2048";

pub(crate) fn command() -> Command {
    Command::new("pki")
        .about("Make certificates for servers and devices, and revoke them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([init(), server(), device(), fleet(), revoke(), crl()])
}

fn init() -> Command {
    Command::new("init")
        .about("Make an authority: ca.pem, ca.key, and an empty crl.pem")
        .args([dir(), days(Days::AUTHORITY), crl_days("crl-days")])
        .arg(text("name").help(
            "The authority's name, unlike that of any other [default: one with random letters]",
        ))
}

fn server() -> Command {
    Command::new("server")
        .about("Make a server certificate: server.pem, server.key; server-rsa.pem, server-rsa.key with --key rsa2048")
        .args([
            dir(),
            names().required(true),
            key_kind(),
            days(Days::CERTIFICATE),
        ])
}

fn device() -> Command {
    Command::new("device")
        .about("Make device certificates: devices/ID.pem, devices/ID.key")
        .args([dir(), ids().required(true), days(Days::CERTIFICATE)])
}

fn fleet() -> Command {
    let count = Arg::new("count")
        .long("count")
        .value_name("N")
        .required(true)
        .value_parser(value_parser!(u32).range(1..=i64::from(FLEET_DEVICES_MAX)));
    Command::new("fleet")
        .about("Make many device certificates: device-000001 and so on; those that exist stay")
        .args([
            dir(),
            count.help("How many devices the fleet has"),
            text("prefix")
                .default_value("device-")
                .help("What stands before the number in a device id"),
            days(Days::CERTIFICATE),
        ])
}

fn revoke() -> Command {
    let serial = text("serial")
        .action(ArgAction::Append)
        .value_parser(Serial::parse);
    Command::new("revoke")
        .about("Add device certificates to crl.pem, by id or serial number")
        .args([
            dir(),
            ids(),
            serial.help("A serial number in hex; may be repeated"),
            crl_days("days"),
        ])
        .group(
            ArgGroup::new("certificates")
                .args(["id", "serial"])
                .required(true)
                .multiple(true),
        )
}

fn crl() -> Command {
    Command::new("crl")
        .about(
            "Sign crl.pem again before it expires, with what it lists; or the first one of an authority made elsewhere",
        )
        .args([dir(), crl_days("days")])
}

fn text(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(name.to_ascii_uppercase())
}

fn dir() -> Arg {
    text("dir")
        .required(true)
        .help("The authority's folder, like certs/my")
}

fn names() -> Arg {
    let parse = |name: &str| name.parse::<ServerName>();
    text("name")
        .action(ArgAction::Append)
        .value_parser(parse)
        .help("A DNS name or an IP address; may be repeated")
}

fn key_kind() -> Arg {
    text("key")
        .value_name("KIND")
        .value_parser(["p256", RSA])
        .default_value("p256")
        .help("The kind of key; rsa2048 is for clients that know no ECDSA, beside a p256 one")
}

fn ids() -> Arg {
    let parse = |id: &str| DeviceId::parse(id).ok_or_else(|| PkiError::NotAnId(id.to_owned()));
    let ids = Arg::new("id")
        .value_name("ID")
        .action(ArgAction::Append)
        .value_parser(parse);
    ids.help("Device ids: 1 to 128 characters of A-Za-z0-9._:/@-")
}

fn days(default: Days) -> Arg {
    days_named("days", default)
        .help("How long it is valid; a certificate never outlives its authority")
}

fn crl_days(name: &'static str) -> Arg {
    days_named(name, Days::CRL)
        .help("How long the CRL is valid; after that, a strict gateway refuses every device")
}

fn days_named(name: &'static str, default: Days) -> Arg {
    let parser = value_parser!(u32).range(1..=i64::from(Days::MAX));
    Arg::new(name)
        .long(name)
        .value_name("DAYS")
        .value_parser(parser)
        .default_value(default.get().to_string())
}

pub(crate) fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    match arguments.subcommand() {
        Some(("init", arguments)) => make_authority(arguments)?,
        Some(("server", arguments)) => make_server(arguments)?,
        Some(("device", arguments)) => make_devices(arguments)?,
        Some(("fleet", arguments)) => make_fleet(arguments)?,
        Some(("revoke", arguments)) => revoke_devices(arguments)?,
        Some(("crl", arguments)) => renew_crl(arguments)?,
        _ => unreachable!("clap requires one of the commands"),
    }
    Ok(ExitCode::SUCCESS)
}

fn make_authority(arguments: &ArgMatches) -> Result<(), PkiError> {
    let name = arguments.get_one::<String>("name");
    let days = (
        given_days(arguments, "days"),
        given_days(arguments, "crl-days"),
    );
    let authority = Authority::init(folder(arguments), name.map(String::as_str), days.0, days.1)?;
    let folder = authority.folder();
    say(&format!(
        "{}, {}, {}",
        folder.ca().display(),
        folder.ca_key().display(),
        folder.crl().display()
    ));
    Ok(())
}

fn make_server(arguments: &ArgMatches) -> Result<(), PkiError> {
    let names: Vec<ServerName> = given(arguments, "name");
    let is_rsa = arguments
        .get_one("key")
        .is_some_and(|key: &String| key == RSA);
    let kind = if is_rsa {
        KeyKind::Rsa2048
    } else {
        KeyKind::P256
    };
    let authority = Authority::open(folder(arguments))?;
    authority.issue_server(&names, kind, given_days(arguments, "days"))?;
    let folder = authority.folder();
    say(&format!(
        "{}, {}",
        folder.server(kind).display(),
        folder.server_key(kind).display()
    ));
    Ok(())
}

fn make_devices(arguments: &ArgMatches) -> Result<(), PkiError> {
    let authority = Authority::open(folder(arguments))?;
    for id in &given(arguments, "id") {
        authority.issue_device(id, given_days(arguments, "days"))?;
        let folder = authority.folder();
        say(&format!(
            "{}, {}",
            folder.device(id).display(),
            folder.device_key(id).display()
        ));
    }
    Ok(())
}

fn make_fleet(arguments: &ArgMatches) -> Result<(), PkiError> {
    let start = Instant::now();
    let authority = Authority::open(folder(arguments))?;
    let prefix = arguments
        .get_one::<String>("prefix")
        .map_or("device-", String::as_str);
    let count = arguments.get_one("count").copied().unwrap_or(1);
    let fleet = authority.issue_fleet(prefix, count, given_days(arguments, "days"))?;
    let (seconds, devices) = (start.elapsed().as_secs_f64(), authority.folder().devices());
    let kept = if fleet.kept == 0 {
        String::new()
    } else {
        format!(" ({} were there before)", fleet.kept)
    };
    let rate = f64::from(fleet.made) / seconds;
    say(&format!(
        "{} certificates and keys in {}{kept}: {seconds:.1} s, {rate:.0} a second",
        fleet.made,
        devices.display()
    ));
    Ok(())
}

fn revoke_devices(arguments: &ArgMatches) -> Result<(), PkiError> {
    let (authority, days) = (
        Authority::open(folder(arguments))?,
        given_days(arguments, "days"),
    );
    let ids: Vec<DeviceId> = given(arguments, "id");
    let mut serials: Vec<Serial> = given(arguments, "serial");
    for id in &ids {
        serials.push(Serial::of_device(authority.folder(), id)?);
    }
    say_crl(&authority, authority.revoke(serials, days)?, days);
    Ok(())
}

fn renew_crl(arguments: &ArgMatches) -> Result<(), PkiError> {
    let (authority, days) = (
        Authority::open(folder(arguments))?,
        given_days(arguments, "days"),
    );
    say_crl(&authority, authority.renew_crl(days)?, days);
    Ok(())
}

fn say_crl(authority: &Authority, revoked: usize, days: Days) {
    say(&format!(
        "{}: {revoked} revoked, valid for {} days",
        authority.folder().crl().display(),
        days.get()
    ));
}

fn folder(arguments: &ArgMatches) -> Folder {
    Folder::new(
        arguments
            .get_one::<String>("dir")
            .map_or("", String::as_str),
    )
}

fn given<T: Clone + Send + Sync + 'static>(arguments: &ArgMatches, name: &str) -> Vec<T> {
    arguments
        .get_many(name)
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

/// clap has checked the range, and knows the default.
fn given_days(arguments: &ArgMatches, name: &str) -> Days {
    arguments
        .get_one(name)
        .copied()
        .and_then(Days::new)
        .unwrap_or(Days::CERTIFICATE)
}
