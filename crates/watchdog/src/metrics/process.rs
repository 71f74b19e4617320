//! What the kernel tells about this process, under the names that Prometheus's clients use.

use std::{fmt::Write as _, fs};

use rustix::param::{clock_ticks_per_second, page_size};

/// The fields of `/proc/self/stat` behind the program's name, counted from the state on.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;
const VIRTUAL_BYTES: usize = 20;
const RESIDENT_PAGES: usize = 21;

/// The lines; none where the kernel does not tell.
pub fn text() -> String {
    let mut text = String::new();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name may have spaces and brackets in it.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return text };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number =
        |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let ticks = clock_ticks_per_second().max(1) as f64;
    let mut say = |kind: &str, name: &str, help: &str, value: f64| {
        // Writing to memory cannot fail.
        let _ = writeln!(
            text,
            "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}"
        );
    };
    let cpu_seconds = (number(USER_TICKS) + number(SYSTEM_TICKS)) as f64 / ticks;
    say("counter", "cpu_seconds_total", "Total user and system CPU time in seconds.", cpu_seconds);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = open.count().saturating_sub(1) as f64;
        say("gauge", "open_fds", "Number of open file descriptors.", open);
    }
    let resident = number(RESIDENT_PAGES).saturating_mul(page_size() as u64) as f64;
    say("gauge", "resident_memory_bytes", "Resident memory size in bytes.", resident);
    let started = boot_seconds() + number(START_TICKS) as f64 / ticks;
    let help = "Start time of the process since unix epoch in seconds.";
    say("gauge", "start_time_seconds", help, started);
    let help = "Virtual memory size in bytes.";
    say("gauge", "virtual_memory_bytes", help, number(VIRTUAL_BYTES) as f64);
    text
}

fn boot_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_this_process_s() {
        let text = text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        assert!(value("process_open_fds ") >= 3.0);
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime_seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let since_boot_seconds = value("process_start_time_seconds ") - boot_seconds();
        assert!(since_boot_seconds > 0.0 && since_boot_seconds <= uptime_seconds + 1.0, "{text}");
    }
}
