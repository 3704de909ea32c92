//! `-m limit`.

use dataplane::rules::kept::Kept;
use dataplane::rules::matches::Match;
use dataplane::rules::matches::limit::Limit;

use super::super::extension::{Extension, Given, Text, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};
use super::rate;

pub(super) const LIMIT: Extension<Match> = Extension {
    name: "limit",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[valued("limit"), valued("limit-burst")],
    begin: |_| Match::Limit(begin()),
};

/// Parts of a period, as the tools count it (`XT_LIMIT_SCALE`).
const SCALE: u64 = 10_000;

/// The largest `--limit-burst`.
const MAX_BURST: u32 = 10_000;

/// `--limit 3/hour`.
fn begin() -> Limit {
    let burst = Limit::DEFAULT_BURST;
    Limit { rate: 3, per_secs: 3600, burst, bucket: Kept::default() }
}

impl Text for Limit {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        if given.name == "limit" {
            let (period, _) = rate::period(text, SCALE)?;
            // As the tools turn the period into the kernel's rate and unit.
            let unit = rate::unit_of(period, SCALE);
            self.per_secs = unit.secs as u32;
            self.rate = (unit.secs * SCALE / period) as u32;
            return Ok(());
        }
        let burst = values::number(text).ok().filter(|&burst| burst <= MAX_BURST);
        self.burst = match burst {
            Some(0) => Limit::DEFAULT_BURST,
            Some(burst) => burst,
            None => return Err(format!("burst `{text}' is not within 0 to {MAX_BURST}")),
        };
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.option("--limit", &rate_text(self));
        if self.burst != Limit::DEFAULT_BURST {
            out.option("--limit-burst", &self.burst.to_string());
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word(&format!("limit: avg {} burst {}", rate_text(self), self.burst));
    }
}

fn rate_text(limit: &Limit) -> String {
    rate::text(SCALE * u64::from(limit.per_secs) / u64::from(limit.rate.max(1)), SCALE)
}
