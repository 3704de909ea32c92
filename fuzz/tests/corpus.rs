//! Every input of the corpora, and every input that ever crashed a target.

use std::fs;
use std::path::Path;

use sluicegate_fuzz::Target;

#[test]
fn nothing_in_the_corpora_crashes_its_target() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for Target { name, run, .. } in sluicegate_fuzz::TARGETS {
        let mut inputs = 0;
        for kind in ["corpus", "crashes"] {
            for entry in fs::read_dir(here.join(kind).join(name)).into_iter().flatten() {
                let path = entry.expect("the corpus can be listed").path();
                println!("{}", path.display());
                run(&fs::read(&path).expect("the corpus can be read"));
                inputs += 1;
            }
        }
        assert!(inputs > 0, "{name} has no corpus");
    }
}
