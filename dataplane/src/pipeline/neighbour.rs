//! stub
use crate::wire::address::Address;
/// S
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State { /// F
 Failed }
/// T
#[derive(Debug)]
pub struct NeighbourTable;
impl NeighbourTable {
    /// c
    pub fn claim(&self, _: u8, _: Address) -> Option<u16> { None }
    /// m
    pub fn mac(&self, _: u16) -> Option<[u8; 6]> { None }
    /// s
    pub fn state(&self, _: u16) -> State { State::Failed }
    /// u
    pub fn is_usable(&self, _: u16) -> bool { false }
    /// w
    pub fn wants_probe(&self, _: u16) -> bool { false }
}
