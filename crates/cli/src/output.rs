//! What people and scripts read: tables and colours for the first, JSON for the second.
//!
//! Colour only on a terminal, never with `NO_COLOR` (no-color.org) or `TERM=dumb`.

mod whole;

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// Whether text to a stream may be coloured.
pub fn has_color(stream: &impl IsTerminal) -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let able = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    stream.is_terminal() && wanted && able
}

/// A paint that is used sparingly: for what went wrong, what is ready, what is secondary.
#[derive(Clone, Copy, Debug)]
pub enum Paint {
    /// Failed.
    Red,
    /// Under way, or a warning.
    Yellow,
    /// Ready.
    Green,
}

/// `text`, painted if `color`.
pub fn painted(text: &str, paint: Paint, color: bool) -> String {
    if !color {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Red => 31,
        Paint::Yellow => 33,
        Paint::Green => 32,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Prints an error to standard error. A closed standard error is no reason to fail differently.
pub fn complain(text: &str) {
    let mut stderr = io::stderr();
    let label = painted("error:", Paint::Red, has_color(&stderr));
    let _ = writeln!(stderr, "{label} {text}");
}

/// Prints a warning to standard error.
pub fn warn(text: &str) {
    let mut stderr = io::stderr();
    let label = painted("warning:", Paint::Yellow, has_color(&stderr));
    let _ = writeln!(stderr, "{label} {text}");
}

/// Prints a remark to standard error: it is no part of the command's result.
pub fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A value as indented JSON, and a line feed.
pub fn json(out: &mut dyn Write, value: &impl Serialize) -> anyhow::Result<()> {
    let form = whole::WholeNumbers::default();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, form);
    value.serialize(&mut serializer).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// A table without borders: columns apart by two spaces, names left, numbers right.
pub struct Columns {
    table: Table,
    numeric: Vec<bool>,
}

impl Columns {
    /// A table with these column titles; `true` marks a column of numbers.
    pub fn new(titles: &[(&str, bool)]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if has_color(&io::stdout()) {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let numeric: Vec<bool> = titles.iter().map(|(_, numeric)| *numeric).collect();
        let title = |(text, numeric): &(&str, bool)| {
            Cell::new(text).add_attribute(Attribute::Bold).set_alignment(alignment(*numeric))
        };
        table.set_header(titles.iter().map(title));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table, numeric }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[String]) {
        let cell = |(text, numeric): (&String, &bool)| {
            // A gateway's text must not move the cursor or recolour the terminal.
            Cell::new(printable(text)).set_alignment(alignment(*numeric))
        };
        self.table.add_row(cells.iter().zip(&self.numeric).map(cell));
    }

    /// Prints the table.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in self.table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn alignment(numeric: bool) -> CellAlignment {
    if numeric { CellAlignment::Right } else { CellAlignment::Left }
}

/// `text` with its control characters (but tab and line feed) made visible: what others wrote must not
/// drive the terminal.
pub fn printable(text: &str) -> String {
    let hostile = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(hostile) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| {
            let escaped = hostile(c).then(|| c.escape_default());
            let plain = (!hostile(c)).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Bytes in the unit that suits them, with one decimal: `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_text_that_tools_can_split() {
        let mut columns = Columns::new(&[("Function", false), ("Replicas", true)]);
        columns.row(&["alpha".into(), "1".into()]);
        columns.row(&["a-much-longer-name".into(), "12".into()]);
        let mut out = Vec::new();
        columns.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["Function", "Replicas"]);
        assert_eq!(rows[1], ["alpha", "1"]);
        assert_eq!(rows[2], ["a-much-longer-name", "12"]);
        assert!(!text.contains('\x1b'), "no colours when it is no terminal: {text:?}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
    }

    #[test]
    fn byte_counts() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(5 << 20), "5.0 MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(printable("a\tb\nc"), "a\tb\nc");
        assert_eq!(printable("\x1b[2Jx"), "\\u{1b}[2Jx");
    }
}
