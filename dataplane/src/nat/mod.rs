//! Address translation: the range a rule asks for, the choice of a unique tuple within it, and the
//! edit of packets. Nothing here keeps state; uniqueness is the conntrack index itself.

pub mod icmp;
pub mod range;
pub mod rewrite;
pub mod select;
pub mod sequence;
