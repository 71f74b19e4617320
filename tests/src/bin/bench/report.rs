//! What was measured, for people and for programs.

use std::{fmt::Write, fs, process::Command};

use anyhow::Result;
use serde::Serialize;

/// All that was measured in one run.
#[derive(Debug, Serialize)]
pub struct Report {
    date: String,
    machine: String,
    benchmarks: Vec<Section>,
}

#[derive(Debug, Serialize)]
struct Section {
    name: &'static str,
    rows: Vec<Row>,
}

/// One figure beside its reference.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Under which circumstances, such as `32 connections, TCP`.
    pub case: String,
    /// What was measured, with its unit.
    pub measure: &'static str,
    /// Pinnace's figure.
    pub ours: f64,
    /// What it is compared with.
    pub reference_name: &'static str,
    /// Its figure; none if it was not to be had.
    pub reference: Option<f64>,
    /// What is promised of the outcome.
    pub promise: Promise,
    /// The outcome: a ratio, a difference or ours itself.
    pub outcome: f64,
}

/// A bound of an outcome.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Ours over the reference's, at least.
    RatioAtLeast(f64),
    /// Ours over the reference's, at most.
    RatioAtMost(f64),
    /// Ours less the reference's, at most.
    AddedAtMost(f64),
    /// Ours, at most.
    AtMost(f64),
    /// Nothing: the figure is shown for comparison.
    Nothing,
}

impl Promise {
    fn is_kept(self, outcome: f64) -> bool {
        match self {
            Self::RatioAtLeast(bound) => outcome >= bound,
            Self::RatioAtMost(bound) | Self::AddedAtMost(bound) | Self::AtMost(bound) => {
                outcome <= bound
            }
            Self::Nothing => true,
        }
    }

    fn words(self) -> String {
        match self {
            Self::RatioAtLeast(bound) => format!(">= {bound} times"),
            Self::RatioAtMost(bound) => format!("<= {bound} times"),
            Self::AddedAtMost(bound) => format!("<= {bound} added"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::Nothing => "nothing".to_owned(),
        }
    }
}

impl Row {
    /// Whether the promise was kept.
    pub fn is_kept(&self) -> bool {
        self.promise.is_kept(self.outcome)
    }
}

impl Report {
    /// An empty report of this machine, now.
    ///
    /// # Errors
    /// The machine does not say what it is.
    pub fn begin() -> Result<Self> {
        let date = Command::new("date").args(["--utc", "+%Y-%m-%d"]).output()?;
        Ok(Self {
            date: String::from_utf8(date.stdout)?.trim().to_owned(),
            machine: machine()?,
            benchmarks: Vec::new(),
        })
    }

    /// Adds a benchmark's rows.
    pub fn add(&mut self, name: &'static str, rows: Vec<Row>) {
        self.benchmarks.push(Section { name, rows });
    }

    /// Whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        self.benchmarks.iter().flat_map(|section| &section.rows).all(Row::is_kept)
    }

    /// The report as a table.
    pub fn table(&self) -> String {
        let mut table = format!("{}, {}\n\n", self.date, self.machine);
        let head = ["benchmark", "case", "measure", "ours", "reference", "outcome", "promise", ""];
        let mut rows = vec![head.map(str::to_owned)];
        for section in &self.benchmarks {
            rows.extend(section.rows.iter().map(|row| cells(section.name, row)));
        }
        let widths: Vec<_> = (0..head.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(table, "{}", line.trim_end()).expect("a string takes it");
        }
        table
    }
}

fn cells(name: &str, row: &Row) -> [String; 8] {
    let reference = match row.reference {
        Some(figure) => format!("{} ({})", shown(figure), row.reference_name),
        None => format!("none ({} is missing)", row.reference_name),
    };
    [
        name.to_owned(),
        row.case.clone(),
        row.measure.to_owned(),
        shown(row.ours),
        reference,
        shown(row.outcome),
        row.promise.words(),
        judged(row).to_owned(),
    ]
}

fn judged(row: &Row) -> &'static str {
    match row.promise {
        Promise::Nothing => "",
        _ if row.is_kept() => "kept",
        _ => "NOT KEPT",
    }
}

fn shown(figure: f64) -> String {
    if figure.abs() >= 1000.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

/// The machine in a few words.
fn machine() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let count = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{count} x {model}, Linux {}", kernel.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_was_not_kept() {
        let row = |ours, promise| Row {
            case: "1 connection".into(),
            measure: "p50 us",
            ours,
            reference_name: "direct",
            reference: Some(50.0),
            promise,
            outcome: ours - 50.0,
        };
        let mut report = Report::begin().unwrap();
        report.add("warm-added", vec![row(90.0, Promise::AddedAtMost(45.0))]);
        assert!(report.is_kept());
        report.add("warm-added", vec![row(99.0, Promise::AddedAtMost(45.0))]);
        assert!(!report.is_kept());
        let table = report.table();
        assert!(table.contains("<= 45 added  kept\n"), "{table}");
        assert!(table.contains("99.00  50.00 (direct)  49.00"), "{table}");
        assert!(table.ends_with("NOT KEPT\n"), "{table}");
        let mut report = Report::begin().unwrap();
        report.add("fork", vec![row(1.0, Promise::Nothing)]);
        assert!(report.is_kept() && report.table().ends_with("nothing\n"), "{}", report.table());
    }
}
