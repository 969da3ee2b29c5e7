//! What shares must do, and what they must refuse.

use proptest::prelude::*;

use super::*;
use crate::vectors::{check_golden, rng};

fn context(division: &str) -> ShareContext {
    ShareContext {
        realm: Realm::new("jiangjin.example").unwrap(),
        division: DivisionId::new(division).unwrap(),
    }
}

fn dealt(count: u8, threshold: u8, seed: u64) -> (Header, Vec<Share>) {
    split(
        &[7; 32],
        count,
        threshold,
        &context("jinfu"),
        &mut rng(seed),
    )
    .unwrap()
}

fn pick(shares: &[Share], numbers: &[usize]) -> Vec<Share> {
    numbers
        .iter()
        .map(|number| shares[number - 1].duplicate())
        .collect()
}

/// Changes a share's value under a valid checksum, as a forger would.
fn altered(share: &Share) -> Share {
    let mut altered = share.duplicate();
    altered.value[5] ^= 1;
    altered
}

/// Interpolation at 0 in GF(256) modulo x^8 + x^4 + x^3 + x + 1, written apart from `vsss-rs`.
fn interpolated(shares: &[Share]) -> Vec<u8> {
    fn times(a: u8, b: u8) -> u8 {
        let mut product = 0u16;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11b << (bit - 8);
            }
        }
        product as u8
    }
    let inverse = |a: u8| (1..=255).find(|b| times(a, *b) == 1).unwrap();
    (0..32)
        .map(|at| {
            shares.iter().fold(0, |sum, share| {
                let others = shares.iter().filter(|other| other.number != share.number);
                let weight = others.fold(1, |weight, other| {
                    times(
                        weight,
                        times(other.number, inverse(other.number ^ share.number)),
                    )
                });
                sum ^ times(share.value[at], weight)
            })
        })
        .collect()
}

/// Every subset of `count` shares, as numbers.
fn subsets(count: u8) -> impl Iterator<Item = Vec<usize>> {
    (0u32..1 << count).map(move |set| {
        (0..usize::from(count))
            .filter(|at| set >> at & 1 == 1)
            .map(|at| at + 1)
            .collect()
    })
}

#[test]
fn exactly_the_subsets_of_threshold_size_and_more_give_the_secret_back() {
    for count in 2..=10 {
        for threshold in 2..=count {
            let (header, shares) = dealt(count, threshold, u64::from(count) << 8);
            for numbers in subsets(count) {
                let combined = combine(&header, &pick(&shares, &numbers));
                if numbers.len() < threshold.into() {
                    let have = numbers.len();
                    let need = threshold;
                    assert_eq!(combined, Err(ShareError::TooFew { have, need }));
                } else {
                    assert_eq!(*combined.unwrap(), [7; 32], "{threshold} of {numbers:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_secret_comes_back_from_shares_in_any_order_through_bytes_and_text(
        secret: [u8; 32],
        count in 2u8..=10,
        least in 2u8..=10,
        order in Just((1..=10).collect::<Vec<usize>>()).prop_shuffle(),
        seed: u64,
    ) {
        let threshold = least.min(count);
        let (header, shares) =
            split(&secret, count, threshold, &context("jinfu"), &mut rng(seed)).unwrap();
        let header = Header::decode(&header.encode()).unwrap();
        let chosen: Vec<Share> = order
            .iter()
            .filter(|number| **number <= count.into())
            .take(threshold.into())
            .map(|number| {
                let bytes = shares[number - 1].encode();
                Share::from_text(&Share::decode(&bytes).unwrap().to_text()).unwrap()
            })
            .collect();
        prop_assert_eq!(&*combine(&header, &chosen).unwrap(), &secret);
        prop_assert_eq!(interpolated(&chosen), secret);
        for share in &shares {
            prop_assert_eq!(share.verify(&header), Ok(()));
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[0-9A-Za-z #\n-]{0,400}") {
        let _ = Share::from_text(&text);
    }
}

#[test]
fn fewer_shares_than_the_threshold_say_nothing_of_the_secret() {
    // Two of three shares: for every value of a byte of the secret there is one third share.
    let (_, shares) = dealt(3, 3, 1);
    let mut third = shares[2].duplicate();
    let secrets: BTreeSet<u8> = (0..=255)
        .map(|value| {
            third.value[0] = value;
            let [one, two] = [0, 1].map(|at: usize| shares[at].duplicate());
            interpolated(&[one, two, third.duplicate()])[0]
        })
        .collect();
    assert_eq!(secrets.len(), 256);
}

#[test]
fn impossible_sharings_are_refused() {
    let wide = SHARES_MAX + 1;
    for (shares, threshold) in [
        (0, 0),
        (1, 1),
        (5, 0),
        (5, 1),
        (5, 6),
        (wide, 3),
        (255, 255),
    ] {
        let refused = split(&[7; 32], shares, threshold, &context("jinfu"), &mut rng(1));
        let error = ShareError::Parameters { shares, threshold };
        assert_eq!(refused.map(|_| ()), Err(error));
    }
    let (header, shares) = dealt(SHARES_MAX, SHARES_MAX, 1);
    assert_eq!(*combine(&header, &shares).unwrap(), [7; 32]);
    assert!(header.encode().len() <= HEADER_MAX);
}

#[test]
fn a_share_of_another_ceremony_is_refused_by_its_number() {
    let (header, shares) = dealt(5, 3, 1);
    // The same secret, the same names, dealt again.
    let (_, again) = dealt(5, 3, 2);
    let mut together = pick(&shares, &[1, 2]);
    together.push(again[2].duplicate());
    let error = ShareError::OtherCeremony {
        number: 3,
        division: DivisionId::new("jinfu").unwrap(),
    };
    assert_eq!(again[2].verify(&header), Err(error.clone()));
    assert_eq!(combine(&header, &together), Err(error));
}

#[test]
fn a_header_exchanged_after_the_dealing_is_refused_by_every_holder() {
    let (header, shares) = dealt(5, 3, 1);
    let change = |change: fn(&mut Header)| {
        let mut other = header.clone();
        change(&mut other);
        other
    };
    let exchanged = [
        change(|header| header.ceremony[0] ^= 1),
        change(|header| header.threshold = 2),
        change(|header| header.secret[0] ^= 1),
        change(|header| header.salt[0] ^= 1),
        change(|header| header.shares[4].0[0] ^= 1),
        change(|header| header.shares.truncate(4)),
        change(|header| header.division = DivisionId::new("other").unwrap()),
        change(|header| header.realm = Realm::new("other.example").unwrap()),
    ];
    for other in exchanged {
        for share in &shares {
            let refused = share.verify(&other).unwrap_err();
            assert!(matches!(refused, ShareError::OtherCeremony { .. }));
        }
    }
}

#[test]
fn an_altered_share_is_refused_by_its_number() {
    let (header, shares) = dealt(5, 3, 1);
    let forged = altered(&shares[1]);
    let error = ShareError::Altered { number: 2 };
    assert_eq!(forged.verify(&header), Err(error.clone()));
    let mut together = pick(&shares, &[1, 3]);
    together.push(forged);
    assert_eq!(combine(&header, &together), Err(error));
    // One holder's share under another number, and numbers beyond the last.
    for number in [0, 1, 6, 255] {
        let mut renamed = shares[1].duplicate();
        renamed.number = number;
        assert_eq!(renamed.verify(&header), Err(ShareError::Altered { number }));
    }
    let mut weaker = shares[1].duplicate();
    weaker.threshold = 2;
    assert!(weaker.verify(&header).is_err());
}

#[test]
fn a_share_given_twice_counts_once() {
    let (header, shares) = dealt(5, 3, 1);
    let refused = combine(&header, &pick(&shares, &[4, 2, 4]));
    assert_eq!(refused, Err(ShareError::Duplicate { number: 4 }));
}

#[test]
fn a_secret_that_is_not_the_committed_one_is_not_given_out() {
    // A dealer that commits to one secret and shares another.
    let (mut header, mut shares) = dealt(3, 2, 1);
    header.secret = commit_secret(&header.ceremony, &header.salt, &[8; 32]);
    for share in &mut shares {
        share.header = header.digest();
    }
    assert_eq!(combine(&header, &shares), Err(ShareError::OtherSecret));
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_share_is_refused() {
    let (_, shares) = dealt(5, 3, 1);
    let bytes = shares[0].encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refused = Share::decode(&flipped).map(|_| ());
        assert_eq!(refused, Err(ShareError::Malformed), "bit {bit}");
    }
    for end in 0..bytes.len() {
        assert!(Share::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert!(Share::decode(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_header_of_impossible_numbers_is_not_read() {
    let (header, _) = dealt(5, 3, 1);
    let bytes = header.encode();
    assert_eq!(Header::decode(&bytes).as_ref(), Ok(&header));
    for threshold in [0, 1, 6, 255] {
        let other = Header {
            threshold,
            ..header.clone()
        };
        assert!(Header::decode(&other.encode()).is_err());
    }
    let mut many = header.clone();
    many.shares = vec![Commitment([0; 32]); 300];
    assert!(Header::decode(&many.encode()).is_err());
    for end in 0..bytes.len() {
        assert!(Header::decode(&bytes[..end]).is_err());
    }
}

#[test]
fn a_share_is_typed_in_short_numbered_lines() {
    let (_, shares) = dealt(5, 3, 1);
    let text = shares[0].to_text();
    assert_eq!(text.lines().count(), 7);
    assert!(text.lines().all(|line| line.len() <= 37), "{}", *text);
    for (at, line) in text.lines().enumerate() {
        assert!(line.starts_with(&format!("{:02} ", at + 1)));
    }
}

#[test]
fn case_spaces_comments_and_letters_that_look_alike_do_not_matter() {
    let (header, shares) = dealt(5, 3, 1);
    let typed: String = shares[0]
        .to_text()
        .lines()
        .map(|line| {
            let (number, letters) = line.split_once(' ').unwrap();
            let letters = letters.to_lowercase().replace(' ', "-");
            let letters = letters.replace('0', "o").replace('1', "l");
            format!("# a comment\n\n  {number}  {letters}  \r\n")
        })
        .collect();
    let read = Share::from_text(&typed).unwrap();
    assert_eq!(read.verify(&header), Ok(()));
}

#[test]
fn a_mistyped_letter_is_found_in_its_line() {
    let (_, shares) = dealt(5, 3, 1);
    let text = shares[0].to_text();
    let lines: Vec<&str> = text.lines().collect();
    let read = |lines: &[String]| Share::from_text(&lines.join("\n")).map(|_| ());
    for at in 0..lines.len() {
        let mut wrong: Vec<String> = lines.iter().map(ToString::to_string).collect();
        for letter in 3..lines[at].len() {
            if lines[at].as_bytes()[letter] == b' ' {
                continue;
            }
            for other in ["X", "Y"] {
                if lines[at][letter..].starts_with(other) {
                    continue;
                }
                wrong[at] = lines[at].into();
                wrong[at].replace_range(letter..=letter, other);
                // A line of 20 bits of checksum lets one mistake in a million through.
                assert_eq!(read(&wrong), Err(ShareError::Line { line: at + 1 }));
            }
        }
        wrong[at] = "é".into();
        assert_eq!(read(&wrong), Err(ShareError::Line { line: at + 1 }));
        wrong.remove(at);
        let missing = ShareError::Missing { line: at + 1 };
        // Without the last line the others are whole; without another the next has its number.
        assert_eq!(read(&wrong), Err(missing));
    }
    let swapped: Vec<String> = [1, 0, 2, 3, 4, 5, 6]
        .map(|at: usize| lines[at].into())
        .into();
    assert_eq!(read(&swapped), Err(ShareError::Missing { line: 1 }));
    let twice: Vec<String> = [0, 0, 2, 3, 4, 5, 6]
        .map(|at: usize| lines[at].into())
        .into();
    assert_eq!(read(&twice), Err(ShareError::Missing { line: 2 }));
    assert_eq!(read(&[]), Err(ShareError::Missing { line: 1 }));
    assert!(Share::from_text(&"0".repeat(5_000)).is_err());
}

#[test]
fn lines_of_two_shares_do_not_make_a_third() {
    let (_, shares) = dealt(5, 3, 1);
    let [one, two] = [0, 1].map(|at: usize| shares[at].to_text());
    // The first two lines of both shares say the same: which ceremony.
    for cut in 3..7 {
        let mixed: Vec<&str> = one.lines().take(cut).chain(two.lines().skip(cut)).collect();
        let refused = Share::from_text(&mixed.join("\n")).map(|_| ());
        assert_eq!(refused, Err(ShareError::Malformed), "{cut}");
    }
}

#[test]
fn a_share_does_not_show_its_value_in_debug_output() {
    let (_, shares) = dealt(5, 3, 1);
    let shown = format!("{:?}", shares[0]);
    assert_eq!(
        shown,
        "Share { division: jinfu, number: 1, value: \"hidden\" }"
    );
}

#[test]
fn the_golden_ceremony_holds() {
    let (header, shares) = dealt(3, 2, 5);
    check_golden(
        "header of shares",
        &header.encode(),
        "fb811e1d9f4c531f74d5fd17860c7aa6c0d80ef4f0dac738c269ef0f67d05732",
    );
    check_golden(
        "share",
        &shares[0].encode(),
        "990f75037fe97cec82d122f57c540ae1d11082852bdb49b2830ed2def3c9c318",
    );
    for share in &shares {
        for line in share.to_text().lines() {
            assert!(crate::vectors::documented(line), "{line}");
        }
    }
}
