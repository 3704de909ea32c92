//! DPDK's own hash table (`rte_hash`), the peer of benchmarks: the product has a table of its own.
//!
//! Keys are 16 bytes, the length for which DPDK has its fastest comparison, and the hash is what it
//! takes by default (CRC32C where the processor has it). Values are numbers of the caller's. A
//! table is for one thread: without locks or transactions, which is how it is fastest.

use std::ffi::CString;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::eal::Running;
use crate::errno::Errno;
use crate::ffi;

/// Keys that one bulk lookup takes at most (`RTE_HASH_LOOKUP_BULK_MAX`).
pub const BULK_MAX: usize = 64;

const ANY_SOCKET: i32 = -1;
const EINVAL: i32 = 22;

/// A key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Key(pub [u32; 4]);

/// A table from keys to numbers, in EAL's memory.
#[derive(Debug)]
pub struct HashTable {
    raw: NonNull<ffi::rte_hash>,
    _running: Arc<Running>,
    /// One thread's.
    _here: PhantomData<*mut ()>,
}

impl HashTable {
    /// A table with room for `entries` keys.
    ///
    /// # Errors
    /// [`HashError`]: EAL is not running, or it refused (no memory, name taken or too long, …).
    pub fn create(name: &str, entries: u32) -> Result<Self, HashError> {
        let running = Running::current().ok_or(HashError::NoEal)?;
        let refused = |errno| HashError::Create { name: name.to_owned(), entries, errno };
        let c_name = CString::new(name).map_err(|_| refused(Errno(EINVAL)))?;
        let parameters = ffi::rte_hash_parameters {
            name: c_name.as_ptr(),
            entries,
            key_len: size_of::<Key>() as u32,
            socket_id: ANY_SOCKET,
            ..Default::default()
        };
        // SAFETY: EAL is initialised while `running` is held; the parameters and the NUL-terminated
        // name live through the call, which copies both and checks all sizes.
        let raw = unsafe { ffi::rte_hash_create(&parameters) };
        let raw = NonNull::new(raw).ok_or_else(|| refused(Errno::last()))?;
        Ok(Self { raw, _running: running, _here: PhantomData })
    }

    /// Enters a key, or replaces its value; false if there is no room.
    #[must_use]
    pub fn add(&mut self, key: &Key, value: usize) -> bool {
        // SAFETY: the table lives as long as self and is this thread's alone. The key has the
        // table's length and is copied; the value is kept as a number that nobody dereferences.
        let error = unsafe {
            ffi::rte_hash_add_key_data(
                self.raw.as_ptr(),
                ptr::from_ref(key).cast(),
                ptr::without_provenance_mut(value),
            )
        };
        error == 0
    }

    /// Removes a key; false if it was not there.
    pub fn remove(&mut self, key: &Key) -> bool {
        // SAFETY: as above; the key is only read.
        let at = unsafe { ffi::rte_hash_del_key(self.raw.as_ptr(), ptr::from_ref(key).cast()) };
        at >= 0
    }

    /// Looks up to [`BULK_MAX`] keys up at once: a bit for each that was found, whose value is in
    /// its place then.
    #[inline]
    pub fn lookup<const N: usize>(&self, keys: &[Key; N], values: &mut [usize; N]) -> u64 {
        const { assert!(N > 0 && N <= BULK_MAX && size_of::<usize>() == size_of::<*mut ()>()) }
        let mut pointers = keys.each_ref().map(|key| ptr::from_ref(key).cast());
        let mut hits = 0;
        // SAFETY: the table lives as long as self, and nobody writes to it meanwhile: that takes
        // `&mut self` on this same thread. `pointers` has N pointers to keys of the table's length,
        // `values` room for N pointers, which are as large and as aligned as `usize`; the call
        // writes to those of the keys found what `add` was given, numbers without provenance.
        unsafe {
            ffi::rte_hash_lookup_bulk_data(
                self.raw.as_ptr(),
                pointers.as_mut_ptr(),
                N as u32,
                &mut hits,
                values.as_mut_ptr().cast(),
            );
        }
        hits
    }
}

impl Drop for HashTable {
    fn drop(&mut self) {
        // SAFETY: made by create and freed here alone; EAL is held until after this.
        unsafe { ffi::rte_hash_free(self.raw.as_ptr()) }
    }
}

/// Why a table was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashError {
    /// EAL is not running.
    NoEal,
    /// DPDK refused.
    Create {
        /// The table's name.
        name: String,
        /// The room asked for.
        entries: u32,
        /// What was left in `rte_errno`: ENOMEM, EEXIST, EINVAL, …
        errno: Errno,
    },
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEal => write!(f, "EAL is not running"),
            Self::Create { name, entries, errno } => {
                write!(f, "no hash table {name} of {entries} entries: {errno}")
            }
        }
    }
}

impl std::error::Error for HashError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig;

    #[test]
    fn what_is_added_is_found_in_bulk_until_it_is_removed() {
        let _eal = rig::eal();
        let mut table = HashTable::create("perf", 1024).unwrap();
        let key = |n: u32| Key([n, !n, n.rotate_left(7), 17]);
        for n in 0..512 {
            assert!(table.add(&key(n), n as usize * 3));
        }
        let keys: [Key; 32] = std::array::from_fn(|i| key(i as u32 * 32));
        let mut values = [usize::MAX; 32];
        assert_eq!(table.lookup(&keys, &mut values), 0xffff, "the first 16 are there");
        assert_eq!(values[..16], std::array::from_fn::<_, 16, _>(|i| i * 96));
        assert!(table.remove(&key(32)) && !table.remove(&key(32)));
        assert_eq!(table.lookup(&keys, &mut values), 0xfffd);
    }

    #[test]
    fn refusals_name_the_table() {
        let _eal = rig::eal();
        let error = HashTable::create("none", 0).unwrap_err().to_string();
        assert!(error.contains("none of 0 entries"), "{error}");
    }
}
