//! Small readers of bytes of strangers. The first letter says which.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use pinnace_core::{
    FunctionRef, Resolvers, duration,
    image::{self, Reference, stored_name},
    limits, name,
    network::Block,
    probes::Probes,
    quantity,
    queue::RetryPolicy,
    scaling::Rules,
    schedule::{self, Schedule},
    wire::Map,
};
use pinnace_sandbox::images::{self, RemoteDocument};
use pinnace_server::logs::Line;

use crate::pushes;

/// What is taken keeps its rules, and is the same once it was written and read again.
///
/// # Panics
/// It is not so.
pub fn check(bytes: &[u8]) {
    let Some((letter, rest)) = bytes.split_first() else { return };
    match letter {
        b'm' => drop(RemoteDocument::read(rest, "the manifest")),
        b'M' => pushes::check_manifest(rest),
        b't' => check_tar(&tar(rest)),
        b'T' => check_tar(rest),
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            check_text(*letter, text);
        }
    }
}

fn check_text(letter: u8, text: &str) {
    match letter {
        b'q' => check_quantity(text),
        b'd' => check_duration(text),
        b'n' => check_name(text),
        b'c' => check_schedule(text),
        b'r' => check_reference(text),
        b'a' => check_annotations(text),
        b'b' => {
            if let Ok(block) = Block::to_allow(text) {
                assert_eq!(Block::to_allow(&block.to_string()), Ok(block));
            }
        }
        b'v' => {
            let read = Resolvers::parse(text);
            assert!(read.servers.len() <= limits::RESOLVERS_MAX);
            if !read.servers.is_empty() {
                assert_eq!(Resolvers::parse(&read.to_conf()), read);
            }
        }
        b'l' => check_line(text),
        b'p' => pushes::check_path(text),
        b'g' => pushes::check_range(text),
        _ => {}
    }
}

fn check_quantity(text: &str) {
    let (bytes, _) = (quantity::parse_bytes(text), quantity::parse_millicores(text));
    if (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        assert_eq!(bytes, text.parse().ok(), "a plain number");
    }
    assert!(bytes.is_none_or(|bytes| bytes <= i64::MAX as u64 + 1));
}

fn check_duration(text: &str) {
    let either = [duration::parse_go(text), duration::parse_seconds_or_go(text)];
    for duration in either.into_iter().flatten() {
        assert!(Instant::now().checked_add(duration).is_some(), "{duration:?} is no time from now");
    }
}

fn check_name(text: &str) {
    if let Ok(function) = FunctionRef::parse(text) {
        assert_eq!(FunctionRef::parse(&function.to_string()), Ok(function.clone()));
        assert!(name::check_label("function", function.name()).is_ok());
    }
}

fn check_schedule(text: &str) {
    let Ok(schedule) = Schedule::parse(text) else { return };
    assert_eq!(schedule.text(), text);
    // The day before a clock is put forward in Europe, one before it is put back, and a leap day.
    for after_s in [1_711_756_800, 1_729_900_800, 1_709_164_800] {
        let Some(next_s) = schedule.next(after_s, after_s) else { continue };
        assert!(next_s > after_s, "{text:?} is due at {next_s}, not after {after_s}");
        let last_s = schedule.last(next_s, after_s);
        assert_eq!(last_s, Some(next_s), "{text:?} was due at that time");
    }
}

fn check_reference(text: &str) {
    let _ = image::check_form(text);
    if let Ok(read) = Reference::parse(text) {
        assert_eq!(Reference::parse(&read.to_string()), Ok(read));
    }
    if let Some(stored) = stored_name(text) {
        assert_eq!(stored_name(&stored), Some(stored.clone()), "of {text:?}");
    }
}

/// A name and its value in each line.
fn check_annotations(text: &str) {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let map: Map = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut faults = Vec::new();
    Probes::read(Some(&map), &mut faults);
    let rules = Rules::read(Some(&map), false, &mut faults);
    assert!(rules.target > 0.0 && rules.proportion > 0.0 && rules.proportion <= 1.0, "{rules:?}");
    let policy = RetryPolicy::default().with(Some(&map));
    assert!((1..=limits::DELIVERY_ATTEMPTS_MAX).contains(&policy.attempts), "{policy:?}");
    assert!(Duration::ZERO < policy.min_wait && policy.min_wait <= policy.max_wait, "{policy:?}");
    assert!(policy.max_wait <= limits::DELIVERY_WAIT_MAX, "{policy:?}");
    // Those beyond the most are told of by one fault.
    let schedules = schedule::of(Some(&map));
    assert!(schedules.len() <= limits::SCHEDULES_PER_FUNCTION_MAX + 1);
    assert!(schedules.iter().flatten().count() <= limits::SCHEDULES_PER_FUNCTION_MAX);
}

fn check_line(text: &str) {
    // Its readers have taken the text apart at its line feeds.
    let Some(line) = text.split('\n').find_map(Line::read) else { return };
    let mut written = String::new();
    line.write_to(&mut written);
    assert_eq!(written.strip_suffix('\n').and_then(Line::read), Some(line), "{written:?}");
}

/// A reader that hands out a few bytes at a time.
struct Slow<'b>(&'b [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(7);
        self.0.read(&mut buffer[..most])
    }
}

fn check_tar(bytes: &[u8]) {
    let whole = images::listed(bytes);
    let slow = images::listed(Slow(bytes));
    match (whole, slow) {
        (Ok(whole), Ok(slow)) => assert_eq!(whole, slow, "read slowly"),
        (Err(whole), Err(slow)) => assert_eq!(whole.to_string(), slow.to_string()),
        (whole, slow) => panic!("whole: {whole:?}, slowly: {slow:?}"),
    }
}

/// A tar of lines, with the sums that headers have. In each a letter for the kind, and between tabs the path, the link,
/// the size, the prefix with all behind it, and the content, in which `|` stands for a line's end.
fn tar(text: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((kind, line)) = line.split_first() else { continue };
        let mut fields = line.split(|byte| *byte == b'\t');
        let mut block = [0; 512];
        block[156] = *kind;
        let mut put = |from: usize, most: usize| {
            let field = fields.next().unwrap_or_default();
            let taken = &field[..field.len().min(most)];
            block[from..from + taken.len()].copy_from_slice(taken);
        };
        put(0, 100);
        put(157, 100);
        put(124, 12);
        put(345, 167);
        let content: Vec<_> = fields.next().unwrap_or_default().to_vec();
        let magic: &[u8] = if block[156] == b'S' { b"ustar  \0" } else { b"ustar\x0000" };
        block[257..265].copy_from_slice(magic);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&block);
        tar.extend(content.iter().map(|byte| if *byte == b'|' { b'\n' } else { *byte }));
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}
