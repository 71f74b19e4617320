//! What an image's configuration means for a function.

use std::{collections::BTreeSet, path::PathBuf};

use oci_spec::image::{Config, ImageConfiguration};
use pinnace_core::{image::ImageConfig, limits::ENVIRONMENT_BYTES_MAX};

use super::{error::LoadError, store::Ownership, user::Accounts};

const WHAT: &str = "the image's configuration";
/// Names of watchdogs that images start with.
const WATCHDOGS: [&str; 2] = ["fwatchdog", "of-watchdog"];
/// First and last real-time signals that programs may use, as glibc counts.
const REAL_TIME: (i32, i32) = (34, 64);
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Reads an image's configuration; names of users are resolved in its layers, given lowest first.
pub(super) fn resolve(
    config: &ImageConfiguration,
    layers: &[PathBuf],
    ownership: Ownership,
) -> Result<ImageConfig, LoadError> {
    let Some(config) = config.config() else {
        return Ok(ImageConfig {
            user: Accounts::read(layers, ownership)?.resolve("")?,
            ..ImageConfig::default()
        });
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let resolved = ImageConfig {
        entrypoint: list(config.entrypoint()),
        cmd: list(config.cmd()),
        env: list(config.env()),
        working_dir: absolute(text(config.working_dir())),
        user: Accounts::read(layers, ownership)?.resolve(&text(config.user()))?,
        exposed_port: lowest_port(config),
        stop_signal: stop_signal(&text(config.stop_signal()))?,
    };
    check(&resolved)?;
    Ok(resolved)
}

/// Which watchdog the image starts with, if with one.
pub(super) fn watchdog(config: &ImageConfig) -> Option<String> {
    let program = config.entrypoint.iter().chain(&config.cmd).next()?;
    let name = program.rsplit('/').next()?;
    WATCHDOGS.contains(&name).then(|| name.to_owned())
}

fn absolute(dir: String) -> String {
    if dir.is_empty() || dir.starts_with('/') { dir } else { format!("/{dir}") }
}

fn lowest_port(config: &Config) -> Option<u16> {
    let ports = config.exposed_ports().iter().flatten();
    let tcp = ports.filter_map(|port| match port.split_once('/') {
        Some((port, "tcp")) => port.parse().ok(),
        Some(_) => None,
        None => port.parse().ok(),
    });
    tcp.filter(|&port| port != 0).collect::<BTreeSet<u16>>().first().copied()
}

/// A signal by number (`3`) or name (`QUIT`, `SIGQUIT`, `SIGRTMIN+3`).
fn stop_signal(text: &str) -> Result<Option<i32>, LoadError> {
    if text.is_empty() {
        return Ok(None);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (first, last) = REAL_TIME;
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text[1..].parse::<i32>().ok() };
    let number = if let Ok(number) = name.parse::<i32>() {
        Some(number)
    } else if let Some(plus) =
        name.strip_prefix("RTMIN").filter(|p| p.is_empty() || p.starts_with('+'))
    {
        offset(plus).and_then(|plus| first.checked_add(plus)).filter(|&n| n >= first)
    } else if let Some(minus) =
        name.strip_prefix("RTMAX").filter(|m| m.is_empty() || m.starts_with('-'))
    {
        offset(minus).and_then(|minus| last.checked_sub(minus)).filter(|&n| n >= first)
    } else {
        let name = match name {
            "POLL" => "IO",
            "IOT" => "ABRT",
            "CLD" => "CHLD",
            other => other,
        };
        SIGNALS.iter().position(|&signal| signal == name).and_then(|at| i32::try_from(at + 1).ok())
    };
    match number.filter(|&number| (1..=last).contains(&number)) {
        Some(number) => Ok(Some(number)),
        None => Err(LoadError::unusable(
            WHAT,
            format!("its stop signal `{}` is no signal of Linux", text.escape_debug()),
        )),
    }
}

/// Refuses what could not be passed to a process.
fn check(config: &ImageConfig) -> Result<(), LoadError> {
    let texts = || config.entrypoint.iter().chain(&config.cmd).chain(&config.env);
    let nul = texts().chain([&config.working_dir]).any(|text| text.contains('\0'));
    let bytes: usize = texts().map(|text| text.len() + 1).sum();
    if nul {
        return Err(LoadError::unusable(
            WHAT,
            "a NUL byte stands in its command, environment or directory",
        ));
    }
    if bytes > ENVIRONMENT_BYTES_MAX || config.working_dir.len() > 4095 {
        return Err(LoadError::unusable(
            WHAT,
            format!(
                "its command and environment take {bytes} bytes; at most {ENVIRONMENT_BYTES_MAX} are \
                 allowed (ENVIRONMENT_BYTES_MAX), and 4095 for its working directory"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ImageConfig, LoadError> {
        let whole = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{json},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        resolve(&serde_json::from_str(&whole).unwrap(), &[], Ownership::Squashed)
    }

    #[test]
    fn all_fields_come_through() {
        let config = parse(
            r#"{"Entrypoint":["/usr/bin/fwatchdog"],"Cmd":["x"],"Env":["A=b"],"WorkingDir":"home/app",
                "User":"5:6","ExposedPorts":{"9000/tcp":{},"53/udp":{},"8080":{},"x/tcp":{}},
                "StopSignal":"SIGQUIT","Labels":null,"Volumes":{"/v":{}},"OnBuild":null}"#,
        )
        .unwrap();
        assert_eq!(config.working_dir, "/home/app");
        assert_eq!((config.user.uid, config.user.gid), (5, 6));
        assert_eq!(config.exposed_port, Some(8080));
        assert_eq!(config.stop_signal, Some(3));
        assert_eq!(watchdog(&config).as_deref(), Some("fwatchdog"));
    }

    #[test]
    fn null_fields_are_absent_ones() {
        let config = parse(
            r#"{"Entrypoint":null,"Cmd":null,"Env":null,"WorkingDir":"","User":"","ExposedPorts":null}"#,
        );
        assert_eq!(config.unwrap(), ImageConfig::default());
        assert_eq!(parse("null").unwrap(), ImageConfig::default());
    }

    #[test]
    fn watchdogs_are_known_by_the_first_word() {
        let with = |entrypoint: &[&str], cmd: &[&str]| {
            let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            watchdog(&ImageConfig {
                entrypoint: list(entrypoint),
                cmd: list(cmd),
                ..ImageConfig::default()
            })
        };
        assert_eq!(with(&[], &["fwatchdog"]).as_deref(), Some("fwatchdog"));
        assert_eq!(with(&["./of-watchdog"], &["a"]).as_deref(), Some("of-watchdog"));
        assert_eq!(with(&["sh"], &["fwatchdog"]), None);
        assert_eq!(with(&["/fwatchdog/x"], &[]), None);
        assert_eq!(with(&[], &[]), None);
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGSYS", 31),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("SIGRTMAX-1", 63),
            ("SIGPOLL", 29),
        ] {
            assert_eq!(stop_signal(text).unwrap(), Some(number), "{text}");
        }
        for bad in
            ["SIG", "0", "65", "-1", "SIGNOPE", "SIGRTMIN+31", "SIGRTMAX-99", "RTMIN3", "RTMIN+é"]
        {
            assert!(stop_signal(bad).unwrap_err().to_string().contains(bad), "{bad}");
        }
    }

    #[test]
    fn what_no_process_can_take_is_refused() {
        assert!(parse(r#"{"Env":["A=\u0000"]}"#).unwrap_err().to_string().contains("NUL"));
        let long = format!(r#"{{"Env":["A={}"]}}"#, "x".repeat(ENVIRONMENT_BYTES_MAX));
        assert!(parse(&long).unwrap_err().to_string().contains("ENVIRONMENT_BYTES_MAX"));
    }
}
