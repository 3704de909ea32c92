//! VLAN sub-interfaces: one device's frames told apart by their 802.1Q tag, as Linux does it.
//!
//! A port of [`PortKind::Vlan`] has no device. Frames that its parent's device receives with its id
//! lose the tag before anything else looks at them, and are from then on frames of that port, so
//! they take the same short ways as any other. What leaves by it gets the tag when all else about
//! the frame is final, on the lcore that has the parent's transmit queue, and counts at that port
//! alone. A frame that is handed over carries the port's own number and no tag.
//!
//! Sub-interfaces come with the first policy and never change while the process runs, so each lcore
//! keeps what it needs of them: a [`Trunk`] for each device that has any. A burst is sorted by id
//! into groups, in the order of arrival within each; two directions of a conn that come by
//! different sub-interfaces are as far apart as on two devices. Bounds: a burst per group, and as
//! many groups as there are ports.

use crate::pipeline::Pipeline;
use crate::pipeline::frame::{Burst, Frame, FramePool};
use crate::pipeline::place::Place;
use crate::pipeline::snapshot::{PortKind, PortSettings};
use crate::rules::facts::PortId;
use crate::time::Now;
use crate::wire::vlan;

/// What a port's frames are on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    /// Whose transmit queue they take.
    pub device: PortId,
    /// The tag control word they carry: the id, priority 0.
    pub tag: Option<u16>,
}

/// The wire of each port; sub-interfaces take their parents' place among the lcores.
pub(crate) fn wires<'a>(
    ports: &'a [PortSettings],
    place: &mut Place,
) -> impl Iterator<Item = Wire> + use<'a> {
    for (number, port) in ports.iter().enumerate() {
        if let PortKind::Vlan { parent, .. } = port.kind {
            place.follow(PortId(number as u8), parent);
        }
    }
    ports.iter().enumerate().map(|(number, port)| match port.kind {
        PortKind::Vlan { parent, id } => Wire { device: parent, tag: Some(id) },
        _ => Wire { device: PortId(number as u8), tag: None },
    })
}

/// The sub-interfaces of one device.
pub(crate) struct Trunk<F>(Box<[Group<F>]>);

struct Group<F> {
    id: u16,
    port: PortId,
    /// Only ever filled while a burst is under way.
    frames: Burst<F>,
}

/// By port number; a trunk is absent while its burst is under way.
pub(crate) type Trunks<F> = Box<[Option<Box<Trunk<F>>>]>;

/// The trunks among the ports.
pub(crate) fn trunks<F>(ports: &[PortSettings]) -> Trunks<F> {
    let of = |device: usize| {
        let group = |(number, port): (usize, &PortSettings)| match port.kind {
            PortKind::Vlan { parent, id } if parent.0 as usize == device => {
                Some(Group { id, port: PortId(number as u8), frames: Burst::new() })
            }
            _ => None,
        };
        let mut groups: Box<[_]> = ports.iter().enumerate().filter_map(group).collect();
        groups.sort_by_key(|g| g.id);
        (!groups.is_empty()).then(|| Box::new(Trunk(groups)))
    };
    (0..ports.len()).map(of).collect()
}

impl<F: Frame> Trunk<F> {
    /// Moves the frames of sub-interfaces into their groups, without their tags.
    fn sort(&mut self, frames: &mut Burst<F>) {
        let mut own = Burst::new();
        for mut frame in frames.drain(..) {
            match self.group_of(&mut frame) {
                // Each has room for a whole burst.
                Some(group) => group.frames.push(frame),
                None => own.push(frame),
            }
        }
        *frames = own;
    }

    /// The group of a frame, whose tag is taken off then.
    #[inline]
    fn group_of(&mut self, frame: &mut F) -> Option<&mut Group<F>> {
        let id = vlan::id(vlan::peek(frame.head())?);
        let at = self.0.binary_search_by_key(&id, |g| g.id).ok()?;
        // There is a whole tag in the first segment, so this cannot fail.
        vlan::pop(frame.head_mut())?;
        frame.strip_front(vlan::TAG_LEN);
        self.0.get_mut(at)
    }
}

/// Puts a tag on a finished frame; false if there is no room for it.
#[inline]
pub(crate) fn put_tag<F: Frame>(frame: &mut F, tci: u16) -> bool {
    frame.push_front(vlan::TAG_LEN) && vlan::push(frame.head_mut(), tci)
}

impl<P: FramePool> Pipeline<P> {
    /// True if the device of `port` has sub-interfaces.
    #[inline(always)]
    pub(crate) fn is_trunk(&self, port: PortId) -> bool {
        self.trunks.get(port.0 as usize).is_some_and(Option::is_some)
    }

    /// Takes a burst of a device with sub-interfaces to its end, group by group.
    pub(crate) fn burst_of_trunk(
        &mut self,
        pool: &mut P,
        port: PortId,
        frames: &mut Burst<P::Frame>,
        now: Now,
    ) {
        let Some(mut trunk) = self.trunks.get_mut(port.0 as usize).and_then(Option::take) else {
            return;
        };
        trunk.sort(frames);
        self.group(pool, port, frames, 0, now);
        for group in &mut trunk.0 {
            self.group(pool, group.port, &mut group.frames, vlan::TAG_LEN as u64, now);
        }
        if let Some(place) = self.trunks.get_mut(port.0 as usize) {
            *place = Some(trunk);
        }
    }

    /// Counts the frames of one port as they were on the wire, `tag` bytes longer, and takes them
    /// to their end.
    fn group(
        &mut self,
        pool: &mut P,
        port: PortId,
        frames: &mut Burst<P::Frame>,
        tag: u64,
        now: Now,
    ) {
        if !frames.is_empty() {
            let bytes = frames.iter().map(|f| f.total_len() as u64 + tag).sum();
            self.count_received(port, frames.len() as u64, bytes);
            self.arrived(pool, port.into(), frames, now);
        }
    }
}
