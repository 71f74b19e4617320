//! Metrics of the server's own process, under the names that clients of Prometheus have agreed on.

use std::fs;

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::text::{Head, line};

/// Fields of `/proc/self/stat` that follow the name in brackets, counted from there.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const RESIDENT_PAGES: usize = 21;

/// Their text. What the kernel does not tell is left out.
pub fn written() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may have spaces and brackets in it.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let ticks = field(USER_TICKS).zip(field(SYSTEM_TICKS)).map(|(user, system)| user + system);
    let seconds = ticks.map(|ticks| ticks / clock_ticks_per_second() as f64);
    let resident = field(RESIDENT_PAGES).map(|pages| pages * page_size() as f64);
    let open = fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64);
    let most = getrlimit(Resource::Nofile).current.map(|most| most as f64);
    let mut text = String::new();
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "Processor time of the server", seconds),
        ("process_resident_memory_bytes", "gauge", "Memory of the server", resident),
        ("process_open_fds", "gauge", "Descriptors that the server has open", open),
        ("process_max_fds", "gauge", "Descriptors that it may have open", most),
    ] {
        let Some(value) = value else { continue };
        Head { name, kind, help }.write(&mut text);
        line(&mut text, name, "", value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let text = written();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap().parse::<f64>().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(value("process_cpu_seconds_total") < 1e6, "{text}");
        assert!(value("process_open_fds") <= value("process_max_fds"), "{text}");
    }
}
