//! How large the table becomes, and what that costs.

use dataplane::conntrack::store::MAX_LIMIT;

/// The smallest number of buckets that can be asked for.
pub const HASHSIZE_MIN: u64 = 1;

/// The largest number of buckets, as in the kernel, where an array of pointers has below 4 GiB.
pub const HASHSIZE_MAX: u64 = u32::MAX as u64 / 8;

/// The reported number of buckets where the configuration names none: 65 536 with 4 GiB of RAM or
/// more, else one for each 16 KiB, at least 1024.
pub fn default_hashsize(ram_bytes: u64) -> u32 {
    const PLENTY: u32 = 65_536;
    if ram_bytes >= 4 << 30 {
        return PLENTY;
    }
    u32::try_from(ram_bytes / 16_384).unwrap_or(PLENTY).clamp(1024, PLENTY)
}

/// The limit where the configuration names none.
pub fn default_max(hashsize: u32) -> u32 {
    hashsize.saturating_mul(4).min(MAX_LIMIT)
}

/// The machine's RAM in bytes as `/proc/meminfo` tells it; 0 if it does not.
pub fn ram_bytes() -> u64 {
    std::fs::read_to_string("/proc/meminfo").map_or(0, |text| parse_meminfo(&text))
}

/// Bytes that a program may still ask for without others being swapped out, as `/proc/meminfo`
/// tells it; no bound if it does not.
pub fn available_bytes() -> u64 {
    let bytes = std::fs::read_to_string("/proc/meminfo").map(|text| field(&text, "MemAvailable:"));
    bytes.ok().filter(|&bytes| bytes > 0).unwrap_or(u64::MAX)
}

fn parse_meminfo(text: &str) -> u64 {
    field(text, "MemTotal:")
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// What the store says about itself, for [`lines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableCost {
    /// 64-byte lines of the index.
    pub index_lines: u64,
    /// Bytes of an IPv4 record.
    pub bytes_per_conn_v4: u64,
    /// Bytes of an IPv6 record.
    pub bytes_per_conn_v6: u64,
}

/// What `check` prints about the table, a line each.
pub fn lines(hashsize: u32, max: u32, cost: TableCost) -> Vec<String> {
    let index = cost.index_lines * 64;
    let (v4, v6) = (cost.bytes_per_conn_v4, cost.bytes_per_conn_v6);
    let full = |each: u64| mib(index + u64::from(max) * each);
    vec![
        format!("conntrack: hashsize {hashsize}, max {max}"),
        format!("index: {} lines, {}", cost.index_lines, mib(index)),
        format!("records: {v4} bytes per IPv4 conn, {v6} per IPv6 conn"),
        format!("at max: {} with IPv4 conns, {} with IPv6 conns", full(v4), full(v6)),
    ]
}

fn mib(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s22_defaults_follow_the_ram() {
        assert_eq!(default_hashsize(0), 1024);
        assert_eq!(default_hashsize(16 << 20), 1024);
        assert_eq!(default_hashsize(512 << 20), 32_768);
        assert_eq!(default_hashsize((4 << 30) - 1), 65_536);
        assert_eq!(default_hashsize(64 << 30), 65_536);
        assert_eq!(default_max(65_536), 262_144);
        assert_eq!(parse_meminfo("MemFree: 1 kB\nMemTotal:  24000 kB\n"), 24_576_000);
        assert_eq!(parse_meminfo(""), 0);
        assert!(ram_bytes() > 0 && available_bytes() < ram_bytes());
        assert_eq!(default_max(HASHSIZE_MAX as u32), MAX_LIMIT);
    }

    #[test]
    fn lines_add_up() {
        let cost =
            TableCost { index_lines: 131_072, bytes_per_conn_v4: 128, bytes_per_conn_v6: 192 };
        assert_eq!(
            lines(65_536, 262_144, cost),
            [
                "conntrack: hashsize 65536, max 262144",
                "index: 131072 lines, 8.0 MiB",
                "records: 128 bytes per IPv4 conn, 192 per IPv6 conn",
                "at max: 40.0 MiB with IPv4 conns, 56.0 MiB with IPv6 conns",
            ]
        );
    }
}
