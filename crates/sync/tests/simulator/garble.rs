//! What an adversary makes of a message: bits, pieces, others' words, and lies in good form.

use ledger::hash::Hash;
use sync::limits::MESSAGE_BYTES_MAX;
use sync::{Gone, Message, RejectCode};

use crate::dice::Dice;

/// Another message in the place of one.
pub fn garble(bytes: &[u8], archive: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match dice.below(64) {
        0..8 => {
            let at = dice.index(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
            bytes
        }
        8..12 => {
            bytes.truncate(dice.index(bytes.len()));
            bytes
        }
        12..32 if !archive.is_empty() => archive[dice.index(archive.len())].clone(),
        32 => {
            bytes.resize(MESSAGE_BYTES_MAX + 1, 0);
            bytes
        }
        _ => match Message::decode(&bytes) {
            Ok(message) => lie(message, dice).encode(),
            Err(_) => bytes,
        },
    }
}

/// A message that is canonical and says something false.
fn lie(message: Message, dice: &mut Dice) -> Message {
    match message {
        // Of one that lost its only entry to an earlier lie, nothing is left to lie about.
        Message::Entries(mut entries) if !entries.items.is_empty() => {
            let (one, other) = (
                dice.index(entries.items.len()),
                dice.index(entries.items.len()),
            );
            match dice.below(10) {
                0 => entries.items.swap(one, other),
                1 => drop(entries.items.remove(one)),
                2 => entries.items.insert(one, entries.items[other].clone()),
                3 => entries.items[one].body = entries.items[other].body.clone(),
                4 => entries.items[one].body = Some(vec![7; 9]),
                5 => entries.items[one].gone = entries.items[other].gone.clone(),
                6 => alter(&mut entries.proof, dice),
                7 => entries.first += dice.below(3),
                8 => {
                    // As if another entry had ordered this body destroyed.
                    let entry = entries.items[other].entry.clone();
                    let (index, proof) = (entries.first + 40, vec![[3; 32]]);
                    entries.items[one].body = None;
                    entries.items[one].gone = Some(Gone {
                        index,
                        entry,
                        proof,
                    });
                }
                _ => entries.head_size = entries.head_size.saturating_sub(1).max(1),
            }
            Message::Entries(entries)
        }
        Message::Offer(mut offer) => {
            offer.note = offer
                .note
                .replacen('\n', &format!("\n{}", dice.below(9)), 1);
            Message::Offer(offer)
        }
        Message::Want(mut want) => {
            match dice.below(3) {
                0 => want.from = want.from.saturating_sub(1),
                1 => want.head_size += 1,
                _ => want.known_size = Some(want.from + dice.below(4)),
            }
            Message::Want(want)
        }
        Message::Cosigned(mut cosigned) => {
            match dice.below(4) {
                0 => cosigned.size += 1,
                3 => cosigned.lines.iter_mut().for_each(|line| {
                    let at = line.len() - 20;
                    let other = if line.as_bytes()[at] == b'A' {
                        "B"
                    } else {
                        "A"
                    };
                    line.replace_range(at..=at, other);
                }),
                1 => drop(cosigned.lines.pop()),
                _ => cosigned.lines.reverse(),
            }
            Message::Cosigned(cosigned)
        }
        Message::Rejected(mut rejected) => {
            rejected.size += dice.below(9);
            rejected.code = RejectCode::Shorter;
            Message::Rejected(rejected)
        }
        Message::Hello(mut hello) => {
            hello.chain.truncate(dice.index(hello.chain.len() + 1));
            Message::Hello(hello)
        }
        Message::Welcome(mut welcome) => {
            welcome.chain.reverse();
            Message::Welcome(welcome)
        }
        other => other,
    }
}

fn alter(proof: &mut Vec<Hash>, dice: &mut Dice) {
    match proof.len() {
        0 => proof.push([1; 32]),
        length if dice.below(2) == 0 => proof[dice.index(length)] = [2; 32],
        _ => drop(proof.pop()),
    }
}
