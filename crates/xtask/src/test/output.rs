//! Reads what `cargo test -- --show-output` prints and counts it.
//!
//! Format: the libtest harness (The rustc book, "Tests", section "Test output"): `running N tests`, one line per
//! test, the captured output of failed and (with `--show-output`) passed tests, `test result: …`.

/// Counts of one part of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    /// What failed, one line each.
    pub failures: Vec<String>,
    /// What was skipped, one line each.
    pub skips: Vec<String>,
}

impl Tally {
    /// The tally of one yes-or-no check.
    pub fn of(name: &str, passed: bool) -> Self {
        let mut tally = Self::default();
        if passed {
            tally.passed = 1;
        } else {
            tally.fail(name.to_owned());
        }
        tally
    }

    /// Counts one more failure.
    pub fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// Counts one more thing that was not run.
    pub fn skip(&mut self, what: String) {
        self.skipped += 1;
        self.skips.push(what);
    }

    /// Adds the counts of another part.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }

    /// `N passed, N failed`, and `, N skipped` when something was.
    pub fn line(&self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            line.push_str(&format!(", {} skipped", self.skipped));
        }
        line
    }
}

/// Reads the output line by line.
#[derive(Debug, Default)]
pub struct Reader {
    tally: Tally,
    harnesses_open: u64,
    in_successes: bool,
    /// Ignored tests of the running harness that other tests start as their child processes.
    children: u64,
}

/// How the reason of an ignored test says that another test starts it, so that it does run.
const CHILD_MARK: &str = "started by";

/// What a test prints, at the start of a line, when a peer is missing and it ran without it.
const SKIP_MARK: &str = "SKIPPED";

impl Reader {
    /// Takes one line; true when a person should see it (the output of passed tests is not shown).
    pub fn take(&mut self, line: &str) -> bool {
        if let Some(what) = line.strip_prefix(SKIP_MARK) {
            self.tally.skip(what.trim_start_matches([':', ' ']).to_owned());
            return true;
        }
        if line.starts_with("test ") && line.contains(" ... ignored, ") && line.contains(CHILD_MARK) {
            self.children += 1;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            return self.take_result(result);
        }
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.harnesses_open += 1;
        } else if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
            && !self.in_successes
        {
            self.tally.failures.push(name.to_owned());
        }
        !self.in_successes
    }

    fn take_result(&mut self, result: &str) -> bool {
        if let (Some(passed), Some(failed)) = (count(result, "passed"), count(result, "failed")) {
            self.in_successes = false;
            self.harnesses_open = self.harnesses_open.saturating_sub(1);
            self.tally.passed += passed;
            self.tally.failed += failed;
            let children = std::mem::take(&mut self.children);
            let ignored = count(result, "ignored").unwrap_or(0).saturating_sub(children);
            for _ in 0..ignored {
                self.tally.skip("a test marked #[ignore]".to_owned());
            }
        }
        !self.in_successes
    }

    /// The counts, once cargo has ended. A harness that died without its result line is one failure, and so is a
    /// cargo that failed although no test did.
    pub fn finish(mut self, cargo_succeeded: bool) -> Tally {
        for _ in 0..self.harnesses_open {
            self.tally
                .fail("a test program died before it printed its result".to_owned());
        }
        if !cargo_succeeded && self.tally.failed == 0 {
            self.tally
                .fail("cargo test failed although no test did; its words are above".to_owned());
        }
        self.tally
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; …`.
fn count(result: &str, word: &str) -> Option<u64> {
    let words: Vec<&str> = result.split([' ', ';']).filter(|part| !part.is_empty()).collect();
    words
        .windows(2)
        .find(|pair| pair[1] == word)
        .and_then(|pair| pair[0].parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, cargo_succeeded: bool, expected: &str) -> Tally {
        let mut reader = Reader::default();
        for line in output.lines() {
            reader.take(line);
        }
        let tally = reader.finish(cargo_succeeded);
        assert_eq!(tally.line(), expected);
        tally
    }

    const GREEN: &str = "\nrunning 2 tests\ntest a ... ok\ntest b ... ok\n\nsuccesses:\n\n---- a stdout ----\nhello\n\
        \nsuccesses:\n    a\n    b\n\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn results_of_all_programs_are_added() {
        check(&format!("{GREEN}{GREEN}"), true, "4 passed, 0 failed");
    }

    #[test]
    fn the_output_of_passed_tests_is_not_shown_but_a_skip_is() {
        let mut reader = Reader::default();
        let output = GREEN.replace("hello", "hello\nSKIPPED postgres: not installed");
        let shown: Vec<&str> = output.lines().filter(|line| reader.take(line)).collect();
        assert!(shown.contains(&"SKIPPED postgres: not installed"));
        assert!(!shown.contains(&"hello"));
        assert_eq!(reader.finish(true).line(), "2 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn failed_tests_are_named() {
        let output = "running 2 tests\ntest a ... ok\ntest slices::b ... FAILED\n\nfailures:\n\n---- slices::b stdout ----\nno\n\
            \ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let tally = check(output, false, "1 passed, 1 failed");
        assert_eq!(tally.failures, ["slices::b"]);
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let tally = check("running 9 tests\ntest a ... ok\n", false, "0 passed, 1 failed");
        assert!(tally.failures[0].contains("died"));
    }

    #[test]
    fn cargo_that_fails_without_a_test_is_a_failure() {
        check(GREEN, false, "2 passed, 1 failed");
    }

    #[test]
    fn a_child_that_another_test_starts_is_no_skip() {
        let mut reader = Reader::default();
        for line in [
            "running 1 test",
            "test a ... ignored, runs without end; started by b",
            "test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            reader.take(line);
        }
        assert_eq!(reader.finish(true).skipped, 0);
    }

    #[test]
    fn an_ignored_test_is_a_skip() {
        let output = "running 1 test\ntest a ... ignored\n\n\
            test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        check(output, true, "0 passed, 0 failed, 1 skipped");
    }
}
