//! stub
use std::path::Path;
/// r
pub fn run(_: &Path, _: &Path, _: &Path, _: bool, _: bool) -> u8 {
    1
}
