//! `forebay pki`: an authority, its certificates, its revocations. Prints what it has written.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use super::say;
use crate::pki::{
    Authority, Days, FLEET_DEVICES_MAX, Fleet, Folder, KeyKind, PkiError, Serial, ServerName,
};
use crate::record::DeviceId;

/// The kind of key for clients that know no ECDSA, as `--key` has it.
const RSA: &str = "rsa2048";

const RENEW: &str = "renew";

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
            names().required_unless_present(RENEW),
            key_kind(),
            days(Days::CERTIFICATE),
            renew(),
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

fn renew() -> Arg {
    Arg::new(RENEW)
        .long(RENEW)
        .action(ArgAction::SetTrue)
        .help("Sign the one that is there anew, for the key that it has and, without --name, its names; it is replaced in one step, under a gateway that serves")
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
    let name = name.map(String::as_str);
    let days = given_days(arguments, "days");
    let crl_days = given_days(arguments, "crl-days");
    let authority = Authority::init(folder(arguments), name, days, crl_days)?;
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
    let kind = match arguments.get_one::<String>("key") {
        Some(key) if key == RSA => KeyKind::Rsa2048,
        _ => KeyKind::P256,
    };
    let authority = Authority::open(folder(arguments))?;
    let days = given_days(arguments, "days");
    let folder = authority.folder();
    if arguments.get_flag(RENEW) {
        authority.renew_server(&names, kind, days)?;
        say(&folder.server(kind).display().to_string());
    } else {
        authority.issue_server(&names, kind, days)?;
        say_pair(&folder.server(kind), &folder.server_key(kind));
    }
    Ok(())
}

fn make_devices(arguments: &ArgMatches) -> Result<(), PkiError> {
    let authority = Authority::open(folder(arguments))?;
    for id in &given(arguments, "id") {
        authority.issue_device(id, given_days(arguments, "days"))?;
        let folder = authority.folder();
        say_pair(&folder.device(id), &folder.device_key(id));
    }
    Ok(())
}

/// Says where a certificate and its key have been written.
fn say_pair(certificate: &Path, key: &Path) {
    say(&format!("{}, {}", certificate.display(), key.display()));
}

fn make_fleet(arguments: &ArgMatches) -> Result<(), PkiError> {
    let start = Instant::now();
    let authority = Authority::open(folder(arguments))?;
    let prefix: &String = only(arguments, "prefix");
    let count = *only(arguments, "count");
    let fleet = authority.issue_fleet(prefix, count, given_days(arguments, "days"))?;
    say_fleet(&authority.folder().devices(), fleet, start.elapsed());
    Ok(())
}

fn say_fleet(folder: &Path, Fleet { made, kept }: Fleet, took: Duration) {
    let folder = folder.display();
    let kept = match kept {
        0 => String::new(),
        kept => format!(" ({kept} were there before)"),
    };
    let seconds = took.as_secs_f64();
    let rate = f64::from(made) / seconds;
    say(&format!(
        "{made} certificates and keys in {folder}{kept}: {seconds:.1} s, {rate:.0} a second"
    ));
}

fn revoke_devices(arguments: &ArgMatches) -> Result<(), PkiError> {
    let authority = Authority::open(folder(arguments))?;
    let days = given_days(arguments, "days");
    let ids: Vec<DeviceId> = given(arguments, "id");
    let mut serials: Vec<Serial> = given(arguments, "serial");
    for id in &ids {
        serials.push(Serial::of_device(authority.folder(), id)?);
    }
    say_crl(&authority, authority.revoke(serials, days)?, days);
    Ok(())
}

fn renew_crl(arguments: &ArgMatches) -> Result<(), PkiError> {
    let authority = Authority::open(folder(arguments))?;
    let days = given_days(arguments, "days");
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
    Folder::new(only::<String>(arguments, "dir"))
}

/// The value of an argument that is required or has a default.
fn only<'a, T: Clone + Send + Sync + 'static>(arguments: &'a ArgMatches, name: &str) -> &'a T {
    let value = arguments.get_one(name);
    value.expect("it is required, or has a default")
}

fn given<T: Clone + Send + Sync + 'static>(arguments: &ArgMatches, name: &str) -> Vec<T> {
    let values = arguments.get_many(name);
    values.into_iter().flatten().cloned().collect()
}

fn given_days(arguments: &ArgMatches, name: &str) -> Days {
    Days::new(*only(arguments, name)).expect("clap has checked the range")
}
