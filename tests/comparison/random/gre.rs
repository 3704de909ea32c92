//! Random GRE: tunnels of version 0, calls of version 1, and headers that nobody expects.

use super::dice::Dice;
use super::plan::{Body, Draft, Fault};

/// One tunnel, or a call in one.
pub struct Tunnel {
    flow: usize,
    /// Of version 1: the call id that packets of the client and of the server carry.
    calls: Option<[u16; 2]>,
}

/// Checksum, key and sequence number present (RFC 2784, RFC 2890).
const FLAGS: [(u64, u8, usize); 4] = [(6, 0, 0), (1, 0x80, 4), (2, 0x20, 4), (1, 0xb0, 12)];

impl Tunnel {
    pub fn new(flow: usize, dice: &mut Dice) -> Tunnel {
        let calls = [7u16, 8, 0, 0x8000];
        let calls = dice.percent(40).then(|| [dice.pick(&calls), dice.pick(&calls)]);
        Tunnel { flow, calls }
    }

    /// The next packet.
    pub fn next(&mut self, dice: &mut Dice) -> Draft {
        let from_client = dice.percent(55);
        let payload = match dice.below(20) {
            0 | 1 => odd(dice),
            // The tunnel's other kind.
            2 => self.sound(!from_client, dice),
            _ => self.sound(from_client, dice),
        };
        let fault = match dice.below(30) {
            0 => Fault::Ttl(1),
            1 => Fault::Header,
            2 => Fault::Cut(dice.pick(&[22, 24, 27, 28, 44])),
            _ => Fault::None,
        };
        Draft { flow: self.flow, from_client, body: Body::Other { payload }, fault }
    }

    fn sound(&self, from_client: bool, dice: &mut Dice) -> Vec<u8> {
        let length = dice.pick(&[1, 4, 20, 100, 900]);
        let mut bytes = match self.calls {
            None => {
                let words = FLAGS.map(|(weight, flags, more)| (weight, (flags, more)));
                let (flags, more) = dice.weighted(&words);
                let mut bytes = vec![flags, 0, 8, 0];
                bytes.resize(4 + more, 9);
                bytes
            }
            Some(calls) => {
                let [high, low] = calls[usize::from(!from_client)].to_be_bytes();
                vec![0x30, 1, 0x88, 0x0b, 0, length as u8, high, low, 0, 0, 0, 1]
            }
        };
        bytes.extend((0..length).map(|at| at as u8 ^ 0x33));
        bytes
    }
}

/// Short headers, other versions, version 1 without PPP.
fn odd(dice: &mut Dice) -> Vec<u8> {
    let headers: [&[u8]; 8] = [
        b"",
        b"\x30\x01",
        b"\x00\x00\x08\x00",
        b"\x30\x01\x88\x0b",
        b"\x30\x01\x88\x0b\x00\x04\x00",
        b"\x30\x01\x08\x00\x00\x04\x00\x07",
        b"\x30\x02\x88\x0b\x00\x04\x00\x07",
        b"\x00\x07\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ];
    dice.pick(&headers).to_vec()
}
