//! To come.
use super::*;
pub fn group() -> Vec<Sequence> {
    vec![]
}
