//! What the command line asks of the bench. Decides how many runs each part takes; starts nothing.

use std::path::PathBuf;

/// Shown by `--help`.
pub const USAGE: &str = "\
berth-bench: Berth beside containerd-shim-runc-v2, phase by phase, in time and in memory

  --runs N          lifecycles and execs per side (default 300: enough for a 99th percentile)
  --quick           a first impression in a minute or two: 50 runs, and fewer pods and bursts
  --only NAME       one part only: lifecycle, gpu, exec, memory, pods or burst; the others' figures in
                    the summary stay as they are
  --shim PATH       Berth's shim (default: BERTH_TEST_SHIM, else the one in the build folder)
  --reference PATH  the shim to compare with (default: the newest fetched one, else the installed one)
";

/// One part of the bench, which can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Shim start, create, start, kill, wait, delete, shutdown, and all of it.
    Lifecycle,
    /// What a GPU adds to a launch, on a simulated node, and the decision's part of that.
    Gpu,
    /// Execs in a running container, and bytes through its standard streams.
    Exec,
    /// What a pod's shim holds.
    Memory,
    /// One pod with 1, 10 and 50 containers.
    Pods,
    /// 50 launches at once.
    Burst,
}

impl Part {
    /// All of them, in the order in which they run.
    pub const ALL: [Part; 6] =
        [Part::Lifecycle, Part::Gpu, Part::Exec, Part::Memory, Part::Pods, Part::Burst];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Part::Lifecycle => "lifecycle",
            Part::Gpu => "gpu",
            Part::Exec => "exec",
            Part::Memory => "memory",
            Part::Pods => "pods",
            Part::Burst => "burst",
        }
    }
}

/// The command line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Lifecycles and execs per side.
    pub runs: usize,
    /// Fewer of everything, and the output says so.
    pub quick: bool,
    /// One part, or all.
    pub only: Option<Part>,
    /// Berth's shim, if named.
    pub shim: Option<PathBuf>,
    /// The reference, if named.
    pub reference: Option<PathBuf>,
}

/// What the command line came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Measure.
    Run(Options),
    /// Print [`USAGE`] and leave.
    Help,
}

impl Options {
    /// Whether this part is to run.
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    /// Rounds per side in which memory is read of several pods.
    pub fn memory_rounds(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// Pods of each size, per side.
    pub fn pods(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }

    /// Bursts per side.
    pub fn bursts(&self) -> usize {
        if self.quick { 2 } else { 5 }
    }

    /// Admissions without a container.
    pub fn admissions(&self) -> usize {
        if self.quick { 300 } else { 3000 }
    }

    /// Runs that are thrown away first, so that caches are as warm for one side as for the other.
    pub fn warm_up(&self) -> usize {
        if self.quick { 3 } else { 10 }
    }
}

/// Understands the arguments after the program's name. The error is a sentence for the user.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let mut runs = None;
    let mut options = Options { runs: 0, quick: false, only: None, shim: None, reference: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--runs" => runs = Some(parse_runs(&value()?)?),
            "--quick" => options.quick = true,
            "--only" => options.only = Some(parse_part(&value()?)?),
            "--shim" => options.shim = Some(value()?.into()),
            "--reference" => options.reference = Some(value()?.into()),
            "--help" | "-h" => return Ok(Command::Help),
            _ => return Err(format!("{argument} is not known here")),
        }
    }
    options.runs = runs.unwrap_or(if options.quick { 50 } else { 300 });
    Ok(Command::Run(options))
}

fn parse_runs(value: &str) -> Result<usize, String> {
    value
        .parse()
        .ok()
        .filter(|&runs| runs > 0)
        .ok_or(format!("--runs wants a number above zero, not {value:?}"))
}

fn parse_part(value: &str) -> Result<Part, String> {
    let known = Part::ALL.map(Part::name).join(", ");
    Part::ALL
        .into_iter()
        .find(|part| part.name() == value)
        .ok_or(format!("--only knows {known}, not {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        match parse(arguments.iter().map(|a| a.to_string())) {
            Ok(Command::Run(options)) => options,
            other => panic!("{arguments:?} gave {other:?}"),
        }
    }

    #[test]
    fn by_default_there_are_runs_enough_for_a_99th_percentile() {
        assert!(options(&[]).runs >= 300);
        assert!(Part::ALL.into_iter().all(|part| options(&[]).wants(part)));
    }

    #[test]
    fn quick_takes_fewer_runs_unless_told_how_many() {
        assert_eq!(options(&["--quick"]).runs, 50);
        assert_eq!(options(&["--quick", "--runs", "7"]).runs, 7);
        assert_eq!(options(&["--runs", "7", "--quick"]).runs, 7);
    }

    #[test]
    fn only_leaves_out_the_other_parts() {
        let options = options(&["--only", "exec"]);
        let wanted: Vec<Part> = Part::ALL.into_iter().filter(|&p| options.wants(p)).collect();
        assert_eq!(wanted, [Part::Exec]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (arguments, word) in [
            (vec!["--fast"], "--fast"),
            (vec!["--runs"], "--runs"),
            (vec!["--runs", "0"], "\"0\""),
            (vec!["--only", "everything"], "everything"),
        ] {
            let error = parse(arguments.iter().map(|a| a.to_string())).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
