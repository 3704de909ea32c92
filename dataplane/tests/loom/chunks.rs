//! Free pieces that cross the shelf between two lcores: no piece is with two of them, also when
//! the same batch comes back to the shelf while the other lcore is about to take it.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane::conntrack::chunks::{BATCH, Chunks, FreeList};
use loom::thread;

use crate::model;

/// Chunks whose numbers below `limit` have all been handed out to the list.
fn taken(limit: u32, free: &mut FreeList) -> (Arc<Chunks<1>>, Vec<u32>) {
    let chunks = Arc::new(Chunks::<1>::new(limit));
    chunks.ensure(limit).unwrap();
    let pieces: Vec<u32> = std::iter::from_fn(|| free.pop(&chunks)).collect();
    assert_eq!(pieces.len() as u32, limit);
    (chunks, pieces)
}

/// Takes `n` pieces, writes to them as their owner does, and puts `back` of them back.
fn use_pieces(chunks: &Chunks<1>, free: &mut FreeList, n: usize, back: usize) -> Vec<u32> {
    let mut held: Vec<u32> = (0..n).map_while(|_| free.pop(chunks)).collect();
    for number in held.split_off(held.len() - back.min(held.len())) {
        free.push(chunks, number);
    }
    held
}

/// All that the list still gets; one more than there are if it goes round in a circle.
fn rest(chunks: &Chunks<1>, free: &mut FreeList) -> Vec<u32> {
    (0..=chunks.limit()).map_while(|_| free.pop(chunks)).collect()
}

fn all_different(held: &[Vec<u32>]) -> usize {
    let all: Vec<u32> = held.concat();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "held twice: {held:?}");
    all.len()
}

/// One lcore takes batches and puts the first of them back while the other takes it: the top that
/// was seen comes back with another batch below it.
#[test]
fn loom_a_batch_that_comes_back_is_not_taken_for_the_old_one() {
    const BATCHES: u32 = 5;
    model(3, || {
        let mut free = FreeList::default();
        let (chunks, pieces) = taken(BATCHES * BATCH, &mut free);
        for number in pieces {
            free.push(&chunks, number);
        }
        // Three batches are on the shelf, two with this list.
        let other = chunks.clone();
        let second = thread::spawn(move || {
            let mut free = FreeList::default();
            let mut held = use_pieces(&other, &mut free, 3 * BATCH as usize, 0);
            let kept = held.split_off(held.len().min(5));
            // As they lay in their batches, so that the first begins with the same piece. With two
            // full ones and a piece more the first goes back to the shelf.
            for batch in held.chunks(BATCH as usize) {
                batch.iter().rev().for_each(|&number| free.push(&other, number));
            }
            let again = use_pieces(&other, &mut free, BATCH as usize + 1, 0);
            [kept, again].concat()
        });
        let mut held = use_pieces(&chunks, &mut free, 3 * BATCH as usize, 0);
        let theirs = second.join().unwrap();
        held.extend(rest(&chunks, &mut free));
        all_different(&[held, theirs]);
    });
}

/// Both put a batch on the shelf and one takes: nothing is missing or doubled in the end.
#[test]
fn loom_pieces_that_cross_the_shelf_are_neither_doubled_nor_lost() {
    const BATCHES: u32 = 6;
    model(3, || {
        let (mut mine, mut theirs) = (FreeList::default(), FreeList::default());
        let (chunks, pieces) = taken(BATCHES * BATCH, &mut mine);
        let (a, b) = pieces.split_at(pieces.len() / 2);
        let (a, b) = (a.to_vec(), b.to_vec());
        // A list keeps two batches: with the first piece of a third it puts one on the shelf.
        let other = chunks.clone();
        let second = thread::spawn(move || {
            b.iter().for_each(|&number| theirs.push(&other, number));
            let held = use_pieces(&other, &mut theirs, 3 * BATCH as usize + 1, 0);
            (held, theirs)
        });
        a.iter().for_each(|&number| mine.push(&chunks, number));
        let (mut held, mut theirs) = second.join().unwrap();
        held.extend(rest(&chunks, &mut theirs));
        let more = rest(&chunks, &mut mine);
        assert_eq!(all_different(&[held, more]), (BATCHES * BATCH) as usize);
    });
}

/// Fresh numbers are handed out once, also while memory for more of them is made.
#[test]
fn loom_fresh_numbers_are_handed_out_once() {
    model(4, || {
        let chunks = Arc::new(Chunks::<1>::new(3 * BATCH));
        chunks.ensure(3 * BATCH).unwrap();
        let take = |chunks: Arc<Chunks<1>>| {
            let mut free = FreeList::default();
            (0..BATCH + 1).map_while(|_| free.pop(&chunks)).collect::<Vec<_>>()
        };
        let other = chunks.clone();
        let second = thread::spawn(move || take(other));
        let mine = take(chunks.clone());
        all_different(&[mine, second.join().unwrap()]);
        assert_eq!(chunks.handed_out(), 3 * BATCH);
    });
}
