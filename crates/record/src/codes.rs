//! Code lists (代码表): what a coded field may say, and the names by which people say it.
//!
//! A list is a small CSV file: `code,name,aliases`, the aliases joined by `|`.
//! It is refused when a code or a name could mean two things.

use std::collections::BTreeMap;

use crate::numbers::narrow;

/// A list as read from its file.
#[derive(Debug, Clone, Default)]
pub(crate) struct CodeList {
    /// Code to name.
    pub names: BTreeMap<String, String>,
    /// Name or alias, folded, to code.
    pub meanings: BTreeMap<String, String>,
}

/// The form in which names are compared: narrow, lower case, without spaces.
pub(crate) fn folded(name: &str) -> String {
    narrow(name).to_lowercase()
}

/// A folded name without its ending 族 or 性: 汉族 is 汉, 男性 is 男.
fn stem(folded: &str) -> &str {
    match folded.strip_suffix(['族', '性']) {
        Some("") | None => folded,
        Some(stem) => stem,
    }
}

impl CodeList {
    /// Reads a list.
    ///
    /// # Errors
    /// The line, from 1, and what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut list = CodeList::default();
        let mut header = false;
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line_number = at + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            if !header {
                if cells.first() != Some(&"code") || cells.get(1) != Some(&"name") {
                    return Err((line_number, "the first row must be `code,name,aliases`"));
                }
                header = true;
                continue;
            }
            let (code, name, aliases) = match cells.as_slice() {
                [code, name] => (*code, *name, ""),
                [code, name, aliases] => (*code, *name, *aliases),
                _ => {
                    return Err((
                        line_number,
                        "a row has a code, a name and aliases joined by `|`",
                    ));
                }
            };
            list.add(code, name, aliases)
                .map_err(|problem| (line_number, problem))?;
        }
        if list.names.is_empty() {
            return Err((1, "the list has no codes"));
        }
        Ok(list)
    }

    /// The list as a file, from which it reads back as it is.
    pub(crate) fn to_text(&self) -> String {
        let mut text = "code,name,aliases\n".to_owned();
        for (code, name) in &self.names {
            let own = stem(&folded(name)).to_owned();
            let aliases = self.meanings.iter();
            let aliases: Vec<&str> = aliases
                .filter(|(meaning, of)| *of == code && **meaning != own)
                .map(|(meaning, _)| meaning.as_str())
                .collect();
            text += &format!("{code},{name},{}\n", aliases.join("|"));
        }
        text
    }

    fn add(&mut self, code: &str, name: &str, aliases: &str) -> Result<(), &'static str> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if code.is_empty() || code.len() > 16 || !code.bytes().all(plain) {
            return Err("a code has 1 to 16 ASCII letters, digits or hyphens");
        }
        if name.is_empty() {
            return Err("a code needs a name");
        }
        if self
            .names
            .insert(code.to_owned(), name.to_owned())
            .is_some()
        {
            return Err("the code stands twice");
        }
        let said = std::iter::once(name).chain(aliases.split('|'));
        for meaning in said.map(folded).filter(|meaning| !meaning.is_empty()) {
            let before = self
                .meanings
                .insert(stem(&meaning).to_owned(), code.to_owned());
            if before.is_some_and(|before| before != code) {
                return Err("the name or an alias belongs to another code as well");
            }
        }
        Ok(())
    }
}

/// The code that a text means in a list: the code itself, also without the leading zeros that
/// spreadsheets drop, or a name or alias of it.
pub(crate) fn resolve(list: &CodeList, text: &str) -> Option<String> {
    let given = folded(text);
    if list.names.contains_key(&given) {
        return Some(given);
    }
    if let Some((code, _)) = list
        .names
        .iter()
        .find(|(code, _)| code.to_lowercase() == given)
    {
        return Some(code.clone());
    }
    let meant = list.meanings.get(stem(&given)).cloned();
    if meant.is_some() || given.is_empty() || !given.bytes().all(|b| b.is_ascii_digit()) {
        return meant;
    }
    let mut padded = list.names.keys().filter(|code| {
        code.len() > given.len()
            && code
                .strip_suffix(given.as_str())
                .is_some_and(|zeros| zeros.bytes().all(|b| b == b'0'))
    });
    match (padded.next(), padded.next()) {
        (Some(code), None) => Some(code.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> CodeList {
        CodeList::parse("# why\ncode,name,aliases\n01,汉,\n02,蒙古,蒙\n49,京,\n1,男性,M|male\n")
            .unwrap()
    }

    #[test]
    fn a_code_may_be_given_by_code_name_or_alias() {
        for (given, code) in [
            ("01", "01"),
            ("０１", "01"),
            ("汉", "01"),
            ("汉族", "01"),
            (" 蒙 古 族 ", "02"),
            ("男", "1"),
            ("Male", "1"),
            ("2", "02"),
        ] {
            assert_eq!(resolve(&list(), given).as_deref(), Some(code), "{given}");
        }
    }

    #[test]
    fn what_a_list_does_not_have_is_not_guessed() {
        for given in ["", "族", "03", "汉人", "9", "0", "1x"] {
            assert_eq!(resolve(&list(), given), None, "{given}");
        }
    }

    #[test]
    fn a_list_in_which_something_could_mean_two_things_is_refused() {
        for text in [
            "",
            "code,name\n",
            "name,code\n甲,1\n",
            "code,name\n1,甲\n1,乙\n",
            "code,name\n1,甲\n2,甲\n",
            "code,name,aliases\n1,甲,丙\n2,乙,丙\n",
            "code,name\n1,汉\n2,汉族\n",
            "code,name\n一,甲\n",
            "code,name\n1,\n",
            "code,name,aliases\n1,甲,乙,丙\n",
        ] {
            assert!(CodeList::parse(text).is_err(), "{text}");
        }
    }
}
