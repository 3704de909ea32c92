//! TFTP (RFC 1350): a transfer begins with a request to port 69 and is answered from a new port.

/// Bytes of the message that are looked at.
pub const BYTES: usize = 2;

const READ_REQUEST: u16 = 1;
const WRITE_REQUEST: u16 = 2;

/// True if `message`, the bytes behind the UDP header, begins a transfer; data, acknowledgements
/// and errors belong to one that has begun (`tftp_help`).
pub fn is_request(message: &[u8]) -> bool {
    let Some(&opcode) = message.first_chunk::<BYTES>() else { return false };
    matches!(u16::from_be_bytes(opcode), READ_REQUEST | WRITE_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_nothing_else() {
        for request in [&b"\0\x01boot\0octet\0"[..], b"\0\x02f\0netascii\0", b"\0\x01"] {
            assert!(is_request(request));
        }
        for other in [&b""[..], b"\0", b"\x01", b"\0\x03\0\x01", b"\0\x04", b"\0\x05", b"\x01\0"] {
            assert!(!is_request(other), "{other:?}");
        }
    }
}
