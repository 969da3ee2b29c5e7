//! Numbers with a rule inside: citizen numbers, credit codes, division codes, telephone numbers.
//!
//! Each function takes a number as somebody typed it and returns its one canonical form.
//! None of them guesses: a number that breaks its rule is refused, with what to do.

/// Why a number is not one. The text is for the clerk and never repeats the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// A citizen number has 18 characters, or 15 in the old form.
    #[error(
        "公民身份号码应为 18 位（旧号码 15 位），请核对位数 / a citizen number has 18 characters, an old one 15; count them again"
    )]
    CitizenLength,
    /// Something other than digits, or an X elsewhere than at the end.
    #[error(
        "公民身份号码只能由数字组成，末位可以是 X，请核对证件 / a citizen number is digits, and may end in X; compare it with the card"
    )]
    CitizenCharacter,
    /// Digits 7 to 14 are no day of the calendar.
    #[error(
        "公民身份号码第 7 至 14 位不是有效的出生日期，请核对证件 / characters 7 to 14 of the citizen number are no day of birth; compare it with the card"
    )]
    CitizenBirth,
    /// The check character of GB 11643 does not fit.
    #[error(
        "公民身份号码校验位不符，可能有一位输错，请核对证件 / the check character of the citizen number does not fit, one character may be mistyped; compare it with the card"
    )]
    CitizenCheck,
    /// A credit code has 18 characters.
    #[error(
        "统一社会信用代码应为 18 位，请核对营业执照或登记证书 / a unified social credit code has 18 characters; compare it with the licence or certificate"
    )]
    CreditLength,
    /// A character outside the alphabet of GB 32100.
    #[error(
        "统一社会信用代码只能用数字和大写字母，且不含 I、O、S、V、Z，请核对证书 / a unified social credit code is digits and capitals without I, O, S, V and Z; compare it with the certificate"
    )]
    CreditCharacter,
    /// The check character of GB 32100 does not fit.
    #[error(
        "统一社会信用代码校验位不符，可能有一位输错，请核对证书 / the check character of the unified social credit code does not fit, one character may be mistyped; compare it with the certificate"
    )]
    CreditCheck,
    /// A division code has 6, 9 or 12 digits.
    #[error(
        "行政区划代码应为 6、9 或 12 位数字，请查区划代码表 / a division code has 6, 9 or 12 digits; look it up in the list of divisions"
    )]
    DivisionLength,
    /// A segment lies outside the ranges of GB/T 2260 and GB/T 10114.
    #[error(
        "行政区划代码的某一段超出编码范围，请查区划代码表 / a part of the division code is outside the range of such codes; look it up in the list of divisions"
    )]
    DivisionSegment,
    /// Neither a mobile number, nor a landline with its area code, nor a 400 or 800 number.
    #[error(
        "电话应为 11 位手机号，或带区号的固定电话（如 023-47521234），请核对 / a telephone number is a mobile number of 11 digits, or a landline with its area code such as 023-47521234; check it"
    )]
    Phone,
}

/// Full-width digits, letters and signs as ASCII, without any white space.
pub(crate) fn narrow(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace())
        .map(narrow_char)
        .collect()
}

/// The ASCII character of a full-width one; any other character as it is.
pub(crate) fn narrow_char(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from((u32::from(c) - 0xfee0) as u8),
        '—' | '–' | '−' | '‐' | '‑' => '-',
        '。' => '.',
        _ => c,
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The check character of GB 11643 (ISO 7064 MOD 11-2) for 17 digits; `None` for anything else.
pub fn citizen_check(digits: &str) -> Option<char> {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    if digits.len() != WEIGHTS.len() || !all_digits(digits) {
        return None;
    }
    let sum: u32 = digits
        .bytes()
        .zip(WEIGHTS)
        .map(|(digit, weight)| u32::from(digit - b'0') * weight)
        .sum();
    Some(char::from(b"10X98765432"[(sum % 11) as usize]))
}

/// A citizen number (GB 11643-1999) in canonical form: 18 characters, X in upper case.
///
/// A number of 15 digits gets its century and check character: 18 when its sequence is
/// 996 to 999, which were kept for people born in the nineteenth century, else 19.
///
/// # Errors
/// [`NumberError`], one of the `Citizen` variants.
pub fn citizen(text: &str) -> Result<String, NumberError> {
    let given = narrow(text).to_ascii_uppercase();
    let number = match given.len() {
        18 => given,
        15 if all_digits(&given) => lengthened(&given),
        15 => return Err(NumberError::CitizenCharacter),
        _ if given.bytes().any(|b| !b.is_ascii_digit() && b != b'X') => {
            return Err(NumberError::CitizenCharacter);
        }
        _ => return Err(NumberError::CitizenLength),
    };
    let (Some(digits), Some(last)) = (number.get(..17), number.get(17..)) else {
        return Err(NumberError::CitizenCharacter);
    };
    let check = citizen_check(digits).ok_or(NumberError::CitizenCharacter)?;
    if digits.starts_with('0') || !(all_digits(last) || last == "X") {
        return Err(NumberError::CitizenCharacter);
    }
    if !last.starts_with(check) {
        return Err(NumberError::CitizenCheck);
    }
    crate::dates::canonical(&digits[6..14]).map_err(|_| NumberError::CitizenBirth)?;
    Ok(number)
}

fn lengthened(old: &str) -> String {
    let century = if matches!(&old[12..], "996" | "997" | "998" | "999") {
        "18"
    } else {
        "19"
    };
    let digits = format!("{}{century}{}", &old[..6], &old[6..]);
    let check = citizen_check(&digits).map_or(String::new(), String::from);
    digits + &check
}

/// The birth date in a canonical citizen number, as `YYYY-MM-DD`.
pub fn citizen_birth_date(number: &str) -> Option<String> {
    let date = number.get(6..14)?;
    Some(format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]))
}

/// The sex in a canonical citizen number, as a code of GB/T 2261.1: 1 male, 2 female.
pub fn citizen_sex(number: &str) -> Option<&'static str> {
    let digit = number.as_bytes().get(16)?;
    Some(if digit % 2 == 1 { "1" } else { "2" })
}

const CREDIT_ALPHABET: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";

/// The check character of GB 32100 (MOD 31) for 17 characters; `None` for anything else.
pub fn credit_check(characters: &str) -> Option<char> {
    const WEIGHTS: [usize; 17] = [
        1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28,
    ];
    if characters.len() != WEIGHTS.len() {
        return None;
    }
    let mut sum = 0;
    for (byte, weight) in characters.bytes().zip(WEIGHTS) {
        sum += CREDIT_ALPHABET.iter().position(|c| *c == byte)? * weight;
    }
    Some(char::from(CREDIT_ALPHABET[(31 - sum % 31) % 31]))
}

/// A unified social credit code (GB 32100-2015) in canonical form: 18 characters, upper case.
///
/// Whether the organization code inside it (GB 11714) fits is not asked: registered units exist
/// whose code breaks that rule ([`organization_code_fits`]).
///
/// # Errors
/// [`NumberError`], one of the `Credit` variants.
pub fn credit(text: &str) -> Result<String, NumberError> {
    let code = narrow(text).to_ascii_uppercase();
    if code.chars().count() != 18 {
        return Err(NumberError::CreditLength);
    }
    let body = code.get(..17).ok_or(NumberError::CreditCharacter)?;
    let check = credit_check(body).ok_or(NumberError::CreditCharacter)?;
    match code.chars().last() {
        Some(last) if last == check => Ok(code),
        Some(last) if CREDIT_ALPHABET.contains(&(last as u8)) && last.is_ascii() => {
            Err(NumberError::CreditCheck)
        }
        _ => Err(NumberError::CreditCharacter),
    }
}

/// The check character of an organization code (GB 11714, MOD 11) for its 8 characters.
pub fn organization_check(characters: &str) -> Option<char> {
    const WEIGHTS: [u32; 8] = [3, 7, 9, 10, 5, 8, 4, 2];
    if characters.len() != WEIGHTS.len() {
        return None;
    }
    let mut sum = 0;
    for (c, weight) in characters.chars().zip(WEIGHTS) {
        if c.is_ascii_lowercase() {
            return None;
        }
        sum += c.to_digit(36)? * weight;
    }
    Some(match 11 - sum % 11 {
        10 => 'X',
        11 => '0',
        digit => char::from(b'0' + digit as u8),
    })
}

/// Whether characters 9 to 17 of a canonical credit code are an organization code of GB 11714.
/// Ask it for a hint, never for a refusal.
pub fn organization_code_fits(code: &str) -> bool {
    match (code.get(8..16), code.get(16..17)) {
        (Some(body), Some(last)) => {
            organization_check(body).is_some_and(|check| last.starts_with(check))
        }
        _ => false,
    }
}

/// A division code in canonical form: 6 digits (GB/T 2260), 9 or 12 (GB/T 10114 and the
/// statistics bureau's rules).
///
/// Digits 7 to 9 name a town: the rules end at 599, but the civil affairs list has some above
/// 700. Digits 10 to 12 name a community or village and run to 599. Zeros mean "no town" or
/// "no village", so nothing may follow zeros but zeros.
/// Whether the division exists is another question.
///
/// # Errors
/// [`NumberError::DivisionLength`] or [`NumberError::DivisionSegment`].
pub fn division(text: &str) -> Result<String, NumberError> {
    let code = narrow(text);
    if !all_digits(&code) || !matches!(code.len(), 6 | 9 | 12) {
        return Err(NumberError::DivisionLength);
    }
    let padded = format!("{code:0<12}");
    let segments = [
        &padded[..2],
        &padded[2..4],
        &padded[4..6],
        &padded[6..9],
        &padded[9..],
    ];
    let is_zero = |segment: &str| segment.bytes().all(|b| b == b'0');
    // A city without counties (Zhongshan) has towns right under it, so a county may be missing.
    let gap = (is_zero(segments[0]) || code.starts_with('0'))
        || (is_zero(segments[1]) && !is_zero(segments[2]))
        || (is_zero(segments[3]) && !is_zero(segments[4]));
    let beyond = segments[3] > "799" || segments[4] > "599";
    if gap || beyond {
        return Err(NumberError::DivisionSegment);
    }
    Ok(code)
}

/// A telephone number in canonical form: 11 digits, or `area-number` or `area-number-extension`.
///
/// # Errors
/// [`NumberError::Phone`].
pub fn phone(text: &str) -> Result<String, NumberError> {
    let given = narrow(text).replace(['转', '#'], "-");
    let (plus, given) = match given.strip_prefix('+') {
        Some(rest) => (true, rest.to_owned()),
        None => (false, given),
    };
    if !given
        .bytes()
        .all(|b| b.is_ascii_digit() || b"-()".contains(&b))
    {
        return Err(NumberError::Phone);
    }
    let parts: Vec<&str> = given
        .split(['-', '(', ')'])
        .filter(|part| !part.is_empty())
        .collect();
    let digits = parts.concat();
    let (abroad, national) = match digits
        .strip_prefix("0086")
        .or_else(|| digits.strip_prefix("86"))
    {
        Some(rest) if rest.len() >= 10 => (true, rest),
        _ if plus => return Err(NumberError::Phone),
        _ => (false, digits.as_str()),
    };
    if is_mobile(national) || is_service(national) {
        return Ok(national.to_owned());
    }
    // Only a separator tells an extension from the number before it.
    if let [_, .., extension] = parts.as_slice()
        && (1..=5).contains(&extension.len())
        && let Some(line) = national
            .strip_suffix(extension)
            .and_then(|whole| landline(whole, abroad))
    {
        return Ok(format!("{line}-{extension}"));
    }
    landline(national, abroad).ok_or(NumberError::Phone)
}

fn is_mobile(digits: &str) -> bool {
    digits.len() == 11 && digits.starts_with('1') && matches!(digits.as_bytes()[1], b'3'..=b'9')
}

/// 400 and 800 numbers of ten digits, which a company may give.
fn is_service(digits: &str) -> bool {
    digits.len() == 10 && (digits.starts_with("400") || digits.starts_with("800"))
}

fn landline(digits: &str, abroad: bool) -> Option<String> {
    // After a country code the area code comes without its zero.
    let digits = if abroad && !digits.starts_with('0') {
        format!("0{digits}")
    } else {
        digits.to_owned()
    };
    if !digits.starts_with('0') {
        return None;
    }
    let area = match digits.as_bytes().get(1)? {
        b'1' if digits.starts_with("010") => 3,
        b'2' => 3,
        b'3'..=b'9' => 4,
        _ => return None,
    };
    let (area, local) = (digits.get(..area)?, digits.get(area..)?);
    let fits = matches!(local.len(), 7 | 8) && matches!(local.as_bytes()[0], b'2'..=b'9');
    fits.then(|| format!("{area}-{local}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_gb_11643_hold() {
        for number in ["11010519491231002X", "440524188001010014"] {
            assert_eq!(citizen(number).as_deref(), Ok(number));
        }
        assert_eq!(
            citizen(" １１０１０５１９４９１２３１００２ｘ ").as_deref(),
            Ok("11010519491231002X")
        );
        assert_eq!(
            citizen_birth_date("11010519491231002X").as_deref(),
            Some("1949-12-31")
        );
        assert_eq!(citizen_sex("11010519491231002X"), Some("2"));
        assert_eq!(citizen_sex("440524188001010014"), Some("1"));
    }

    #[test]
    fn every_change_of_one_digit_of_a_citizen_number_is_refused() {
        let number = "11010519491231002X";
        for at in 0..18 {
            for digit in b"0123456789X" {
                let mut changed = number.as_bytes().to_vec();
                if changed[at] == *digit {
                    continue;
                }
                changed[at] = *digit;
                let changed = String::from_utf8(changed).unwrap();
                assert!(citizen(&changed).is_err(), "{changed}");
            }
        }
    }

    #[test]
    fn a_number_of_15_digits_gets_its_century_and_check_character() {
        assert_eq!(
            citizen("110105491231002").as_deref(),
            Ok("11010519491231002X")
        );
        assert!(
            citizen("110105991231998")
                .unwrap()
                .starts_with("1101051899")
        );
        assert_eq!(
            citizen("110105491331002"),
            Err(NumberError::CitizenBirth),
            "a thirteenth month"
        );
    }

    #[test]
    fn what_is_no_citizen_number_is_refused_with_its_own_reason() {
        use NumberError::*;
        for (text, error) in [
            ("", CitizenLength),
            ("1101051949123100", CitizenLength),
            ("11010519491231002XX", CitizenLength),
            ("1101051949123100XX", CitizenCharacter),
            ("身份证号码", CitizenCharacter),
            ("身份证号码号", CitizenCharacter),
            ("11010519491231002K", CitizenCharacter),
            ("110105194912310021", CitizenCheck),
            ("010105194912310024", CitizenCharacter),
        ] {
            assert_eq!(citizen(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_citizen_number_with_a_right_check_but_no_such_day_is_refused() {
        let digits = "11010519490230002";
        let number = format!("{digits}{}", citizen_check(digits).unwrap());
        assert_eq!(citizen(&number), Err(NumberError::CitizenBirth));
    }

    #[test]
    fn the_examples_of_gb_32100_hold() {
        for code in ["9150011674286959X8", "91350100M000100Y43"] {
            assert_eq!(credit(&code.to_lowercase()).as_deref(), Ok(code));
        }
    }

    #[test]
    fn every_change_of_one_character_of_a_credit_code_is_refused() {
        let code = "91350100M000100Y43";
        for at in 0..18 {
            for character in b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ" {
                let mut changed = code.as_bytes().to_vec();
                if changed[at] == *character {
                    continue;
                }
                changed[at] = *character;
                let changed = String::from_utf8(changed).unwrap();
                assert!(credit(&changed).is_err(), "{changed}");
            }
        }
        assert_eq!(credit("9135"), Err(NumberError::CreditLength));
        assert_eq!(
            credit("统一社会信用代码统一社会信用代码统一"),
            Err(NumberError::CreditCharacter)
        );
    }

    #[test]
    fn the_organization_code_inside_is_only_a_hint() {
        assert_eq!(organization_check("D2143569"), Some('X'));
        assert!(organization_code_fits("9150011674286959X8"));
        // A registered unit: right by GB 32100, wrong by GB 11714.
        assert!(credit("91411524774901675F").is_ok());
        assert!(!organization_code_fits("91411524774901675F"));
    }

    #[test]
    fn division_codes_keep_to_their_segments() {
        for code in [
            "500116",
            "500000",
            "442000108",
            "320509600",
            "522323702",
            "500116004",
            "510185001001",
            "360113005400",
            "522632210500",
            "500116000000",
        ] {
            assert_eq!(division(code).as_deref(), Ok(code));
        }
        for code in [
            "",
            "50011",
            "5001160",
            "000116",
            "500016",
            "500116000001",
            "500116800",
            "500116004700",
            "50011600400a",
        ] {
            assert!(division(code).is_err(), "{code}");
        }
    }

    #[test]
    fn telephone_numbers_have_one_form() {
        for (given, canonical) in [
            ("13800138000", "13800138000"),
            ("+86 138-0013-8000", "13800138000"),
            ("008613800138000", "13800138000"),
            ("１３８００１３８０００", "13800138000"),
            ("02347521234", "023-47521234"),
            ("(0873)3722345", "0873-3722345"),
            ("+86 23 4752 1234", "023-47521234"),
            ("010-65551234转801", "010-65551234-801"),
            ("023-4752-1234", "023-47521234"),
            ("400-820-8820", "4008208820"),
        ] {
            assert_eq!(phone(given).as_deref(), Ok(canonical), "{given}");
        }
        for given in [
            "",
            "12345",
            "1380013800",
            "138001380001",
            "12800138000",
            "47521234",
            "011-65551234",
            "+85221234567",
            "电话",
            "13800138000/13900139000",
        ] {
            assert_eq!(phone(given), Err(NumberError::Phone), "{given}");
        }
    }
}
