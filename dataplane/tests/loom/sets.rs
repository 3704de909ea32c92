//! Elements of sets: numbers used again while somebody looks.

use std::sync::Arc;

use dataplane::rules::sets::elements::Writer;
use dataplane::rules::sets::key::Key;
use loom::thread;

use crate::model;

fn pair(first: u128, second: u128) -> Key {
    Key { first, second, ..Key::default() }
}

/// What stays is found; half of an element that goes and half of the one that gets its number,
/// which never was in the set, is not.
#[test]
fn loom_a_number_used_again_is_not_taken_for_what_never_was() {
    model(2, || {
        let mut writer = Writer::new(3, 0);
        let (stays, goes, comes) = (pair(1, 1), pair(2, 2), pair(3, 3));
        for key in [&stays, &goes] {
            assert!(writer.insert(key, false, None, (0, 0)).is_ok());
        }
        let elements = Arc::clone(writer.elements());
        let looks = thread::spawn(move || {
            assert!(elements.find(&stays).is_some());
            assert!(elements.find(&pair(2, 3)).is_none());
            assert!(elements.find(&pair(3, 2)).is_none());
            if let Some(found) = elements.find(&comes) {
                assert!(found.nomatch && found.counters() == (7, 8));
            }
        });
        assert!(writer.remove(&goes));
        assert!(writer.insert(&comes, true, None, (7, 8)).is_ok());
        looks.join().unwrap();
        assert!(writer.elements().find(&comes).is_some());
        assert!(writer.elements().find(&goes).is_none());
    });
}
