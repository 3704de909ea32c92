//! Sets that rules ask: the commands that change them.
//!
//! Elements change where they lie and workers see it at once. What walks found before is believed
//! until the next policy, so one is published where a rule in force may judge otherwise from now
//! on; the same brings lists and sets that took another's place to the rules.

use super::ControlCore;
use crate::tools::Answer;

impl ControlCore {
    /// Obeys an `ipset` command line.
    pub(super) fn ipset(&mut self, argv: &[String], stdin: &str) -> Answer {
        // What rules have asked for by now comes first.
        self.read_mail();
        let answer = self.rulesets.sets.run(argv, stdin, self.tick_now());
        if !self.rulesets.sets.take_stale() {
            return answer;
        }
        let published = self.count_rules().map_err(|silent| silent.to_string()).and_then(|()| {
            let rulesets = self.rulesets.clone();
            let (config, macs) = (self.config.clone(), self.macs.clone());
            let snapshot = self.build(&config, &macs, &rulesets).map_err(|e| e.to_string())?;
            self.adopt(snapshot, rulesets).map_err(|late| late.to_string())
        });
        match published {
            Ok(()) => answer,
            Err(error) => {
                // The next command tries again.
                self.rulesets.sets.note_stale();
                let err = format!("{}ipset v7.17: {error}\n", answer.err);
                Answer { err, exit: answer.exit.max(1), ..answer }
            }
        }
    }
}
