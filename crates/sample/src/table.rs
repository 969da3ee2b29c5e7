//! Rows of one kind under field ids, as an office's file would hold them.

use record::draft::Draft;

/// A table: one header a column, one row a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Field ids.
    pub headers: Vec<&'static str>,
    /// Cells, in the order of the headers; empty where there is nothing to say.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Table {
            headers: headers.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn push<const N: usize>(&mut self, row: [String; N]) {
        debug_assert_eq!(N, self.headers.len(), "a cell for each header");
        self.rows.push(row.into());
    }

    /// The cells of one column.
    pub fn column<'a>(&'a self, header: &str) -> impl Iterator<Item = &'a str> {
        let at = self.headers.iter().position(|h| *h == header);
        self.rows
            .iter()
            .filter_map(move |row| Some(row.get(at?)?.as_str()))
    }

    /// Each row as a draft to be checked.
    pub fn drafts(&self) -> impl Iterator<Item = Draft> {
        self.rows.iter().map(|row| Draft {
            fields: self
                .headers
                .iter()
                .zip(row)
                .map(|(id, cell)| ((*id).to_owned(), cell.clone()))
                .collect(),
        })
    }

    /// The table as CSV (RFC 4180), UTF-8, with field ids as headers.
    pub fn csv(&self) -> String {
        let mut text = self.headers.join(",") + "\r\n";
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
            text += &cells.join(",");
            text += "\r\n";
        }
        text
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_commas_and_quotes_are_quoted() {
        let mut table = Table::new(&["a", "b"]);
        table.push(["甲,乙".to_owned(), "说\"是\"".to_owned()]);
        assert_eq!(table.csv(), "a,b\r\n\"甲,乙\",\"说\"\"是\"\"\"\r\n");
        assert_eq!(table.column("b").collect::<Vec<_>>(), ["说\"是\""]);
        assert_eq!(table.column("c").count(), 0);
    }
}
