//! Which node of a cluster owns which slot, as the nodes themselves say.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::LazyLock,
    time::{Duration, Instant},
};

use crc::{CRC_16_XMODEM, Crc};

const SLOTS: u16 = 16384;
const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
/// How long a primary is remembered although no node names it any more, as if the cluster were set up anew.
const REMEMBERED: Duration = Duration::from_secs(10);

/// A number for each slot that, as a hash tag, leads to it.
static TAGS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut tags = vec![None; usize::from(SLOTS)];
    let mut missing = tags.len();
    for number in 0_u32.. {
        let tag = &mut tags[usize::from(slot_of(&number.to_string()))];
        if tag.is_none() {
            *tag = Some(number);
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    tags.into_iter().flatten().collect()
});

/// The slot of a key: that of its hash tag, `{…}`, if it has one.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    CRC16.checksum(hashed.as_bytes()) % SLOTS
}

/// What stands in the hash tag of a key that belongs to this slot.
pub(super) fn tag_of(slot: u16) -> u32 {
    TAGS[usize::from(slot)]
}

/// A host and a port.
pub(super) type NodeAddress = (String, u16);

/// One line of what `CLUSTER NODES` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedNode {
    id: String,
    address: NodeAddress,
    is_primary: bool,
    is_answering: bool,
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
}

/// Parses what the node at `asked` answered. Nodes whose address is not known yet are left out.
pub(super) fn parse_nodes(answer: &str, asked: &NodeAddress, by_name: bool) -> Vec<ListedNode> {
    answer.lines().filter_map(|line| parse_node(line, asked, by_name)).collect()
}

fn parse_node(line: &str, asked: &NodeAddress, by_name: bool) -> Option<ListedNode> {
    let mut fields = line.split(' ');
    let (id, address, flags) = (fields.next()?, fields.next()?, fields.next()?);
    let epoch = fields.nth(3)?.parse().ok()?;
    let slots = fields.skip(1).filter_map(parse_slots).collect();
    let is_answering = flags.split(',').any(|flag| flag == "myself");
    // ADDRESS:PORT@BUS,HOSTNAME,…
    let (address, others) = address.split_once(',').unwrap_or((address, ""));
    let (host, port) = address.split_once('@').map_or(address, |(address, _)| address).rsplit_once(':')?;
    // Certificates are made out to names.
    let name = others.split(',').next().filter(|name| by_name && !name.is_empty() && !name.contains('='));
    let host = match name.unwrap_or(host) {
        // A node that nobody has told yet how it is called.
        "" if is_answering => asked.0.as_str(),
        "" => return None,
        host => host,
    };
    let address = (host.to_owned(), port.parse().ok().filter(|port| *port != 0)?);
    let is_primary = flags.split(',').any(|flag| flag == "master");
    Some(ListedNode { id: id.to_owned(), address, is_primary, is_answering, epoch, slots })
}

/// `5` or `0-5460`. A slot that is being moved, `[5->-ID]`, still is where it was.
fn parse_slots(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (*range.end() < SLOTS).then_some(range)
}

/// The owners of all slots. Each poll of the nodes adds to what is known: of two nodes that claim a slot, that with the higher
/// configuration epoch owns it, because each promotion and each move of slots has a higher one than all before. So a node that was cut
/// off or frozen does not lead back to the former owner.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotMap {
    primaries: HashMap<String, Primary>,
    owners: Vec<Option<NodeAddress>>,
    nodes: Vec<NodeAddress>,
}

#[derive(Clone, Debug)]
struct Primary {
    address: NodeAddress,
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
    said_by_itself: bool,
    named: Instant,
}

impl SlotMap {
    /// The owner of a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&NodeAddress> {
        self.owners.get(usize::from(slot))?.as_ref()
    }

    /// One slot of each node that owns some.
    pub(super) fn one_slot_of_each(&self) -> Vec<u16> {
        let mut found = HashMap::new();
        for slot in 0..SLOTS {
            if let Some(owner) = self.owner(slot) {
                found.entry(owner).or_insert(slot);
            }
        }
        let mut slots: Vec<u16> = found.into_values().collect();
        slots.sort_unstable();
        slots
    }

    /// All nodes that were named last, replicas too.
    pub(super) fn nodes(&self) -> &[NodeAddress] {
        &self.nodes
    }

    /// Adds what several nodes have answered. Also returns whether more than half of the nodes that own slots were among them: a
    /// promotion needs the votes of more than half, so at least one of these knows of it.
    pub(super) fn merge(&self, answers: &[Vec<ListedNode>]) -> (Self, bool) {
        let now = Instant::now();
        let mut primaries = self.primaries.clone();
        for node in answers.iter().flatten().filter(|node| node.is_primary && !node.slots.is_empty()) {
            let named = Primary {
                address: node.address.clone(),
                epoch: node.epoch,
                slots: node.slots.clone(),
                said_by_itself: node.is_answering,
                named: now,
            };
            match primaries.get_mut(&node.id) {
                // In one poll the node itself knows best.
                Some(known) if known.epoch > node.epoch && now - known.named < REMEMBERED => {}
                Some(known)
                    if known.epoch == node.epoch
                        && known.named == now
                        && known.said_by_itself
                        && !node.is_answering => {}
                _ => {
                    primaries.insert(node.id.clone(), named);
                }
            }
        }
        primaries.retain(|_, primary| now - primary.named < REMEMBERED);
        let mut by_epoch: Vec<&Primary> = primaries.values().collect();
        by_epoch.sort_by_key(|primary| primary.epoch);
        let mut owners = vec![None; usize::from(SLOTS)];
        for primary in by_epoch {
            for slot in primary.slots.iter().cloned().flatten() {
                owners[usize::from(slot)] = Some(primary.address.clone());
            }
        }
        let mut nodes: Vec<NodeAddress> = answers.iter().flatten().map(|node| node.address.clone()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.is_empty() {
            nodes.clone_from(&self.nodes);
        }
        let map = Self { primaries, owners, nodes };
        let is_confirmed = map.is_confirmed_by(answers);
        (map, is_confirmed)
    }

    fn is_confirmed_by(&self, answers: &[Vec<ListedNode>]) -> bool {
        let owners = self.one_slot_of_each();
        let answered = owners.iter().filter(|slot| {
            let owner = self.owner(**slot);
            answers.iter().flatten().any(|node| node.is_answering && Some(&node.address) == owner)
        });
        !owners.is_empty() && answered.count() > owners.len() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> NodeAddress {
        ("10.0.0.9".to_owned(), 7000)
    }

    fn parse(answer: &str) -> Vec<ListedNode> {
        parse_nodes(answer, &asked(), false)
    }

    fn port_of(map: &SlotMap, slot: u16) -> Option<u16> {
        map.owner(slot).map(|(_, port)| *port)
    }

    #[test]
    fn keys_belong_to_the_slot_of_their_hash_tag() {
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!(slot_of("123456789"), 12739);
        assert_eq!(slot_of("foo{}{bar}"), slot_of("foo{}{bar}"));
        assert_ne!(slot_of("foo{}{bar}"), slot_of("bar"));
        assert_eq!(slot_of("cache:1a2b3c4d:{order:1}:fill"), slot_of("order:1"));
        for slot in [0, 1, 5460, 16383] {
            assert_eq!(slot_of(&format!("cache:probe:{{{}}}", tag_of(slot))), slot);
        }
    }

    #[test]
    fn a_node_is_read_with_its_address_its_role_and_its_slots() {
        let answer = "a 10.0.0.1:7001@17001,redis-1,shard-id=x myself,master - 0 0 3 connected 0-2 7 [9->-b]\n\
                      b :7002@17002 master - 0 0 2 connected 10\n\
                      c ::1:7003@17003 slave,fail? a 0 0 3 connected\n";
        let nodes = parse(answer);
        assert_eq!(nodes.len(), 2, "b has no address yet");
        assert_eq!(nodes[0].address, ("10.0.0.1".to_owned(), 7001));
        assert_eq!(nodes[0].slots, [0..=2, 7..=7]);
        assert!(nodes[0].is_primary && nodes[0].is_answering && nodes[0].epoch == 3);
        assert_eq!(nodes[1].address, ("::1".to_owned(), 7003));
        assert!(!nodes[1].is_primary && !nodes[1].is_answering);
        assert_eq!(parse_nodes(answer, &asked(), true)[0].address.0, "redis-1");
        assert_eq!(parse("a :7000@17000 myself,master - 0 0 0 connected 0")[0].address, asked());
        assert_eq!(parse("ERR\nx y\n\n"), []);
    }

    #[test]
    fn of_two_nodes_that_claim_a_slot_the_one_with_the_higher_epoch_owns_it() {
        let before = "a h:1@1 myself,master - 0 0 1 connected 0-10\nb h:2@2 slave a 0 0 1 connected";
        let after = "a h:1@1 master,fail - 0 0 1 connected\nb h:2@2 myself,master - 0 0 2 connected 0-10";
        for answers in [[before, after], [after, before]] {
            let (map, _) = SlotMap::default().merge(&answers.map(parse));
            assert_eq!(port_of(&map, 5), Some(2));
            // The old one comes back and knows nothing yet.
            let (map, confirmed) = map.merge(&[parse(before)]);
            assert_eq!(port_of(&map, 5), Some(2));
            assert!(!confirmed, "the owner has not answered");
            assert_eq!(port_of(&map, 11), None);
        }
    }

    #[test]
    fn more_than_half_of_the_owners_must_have_answered() {
        let answer = |own: &str| {
            let line = |id: &str, slots| {
                let myself = if id == own { "myself," } else { "" };
                format!("{id} {id}:1@1 {myself}master - 0 0 1 connected {slots}\n")
            };
            parse(&[line("a", "0-1"), line("b", "2-3"), line("c", "4-5")].concat())
        };
        assert!(!SlotMap::default().merge(&[answer("a")]).1);
        assert!(SlotMap::default().merge(&[answer("a"), answer("c")]).1);
        assert!(!SlotMap::default().merge(&[]).1);
    }
}
