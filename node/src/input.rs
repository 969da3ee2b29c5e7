//! Reading a CSV file: UTF-8 or GBK, plain or gzip, its columns mapped to fields.
//!
//! Owns what a file may take of this machine: bytes, columns, cells, and the length of a row. Refuses
//! what is beyond that, and says where; and what unpacks to far more than any table does.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use csv::StringRecord;
use record::header::{self, HeaderMap};
use record::schema::Schema;
use sha2::{Digest, Sha256};

use crate::fault::{Fault, Result};

/// The largest file, packed or not: it is held in memory, some three times over.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// The longest row, its texts together: longer ones come of a quote that is not closed.
const ROW_BYTES_MAX: usize = 256 * 1024;
/// The most columns; a kind has some sixty fields.
const COLUMNS_MAX: usize = 1024;
/// The most cells: each takes eight bytes beside its text, also an empty one.
const CELLS_MAX: usize = 64_000_000;
/// What a packed file may unpack to whatever its own size.
const UNPACKED_FREE: u64 = 64 * 1024 * 1024;
/// Beyond that, to how many times its own size: tables come to some twenty.
const UNPACKED_TIMES_MAX: u64 = 100;

/// A file's rows, each with its number in the file.
pub struct Table {
    /// SHA-256 of the file as given, hexadecimal.
    pub source: String,
    /// The encoding found.
    pub encoding: &'static str,
    /// The header line as given.
    pub headers: Vec<String>,
    /// Which column is which field.
    pub map: HeaderMap,
    /// The rows as given, with their number from 1.
    pub rows: Vec<(u64, StringRecord)>,
    /// Rows with more or fewer columns than the header has, to be given back.
    pub ragged: Vec<(u64, StringRecord)>,
}

impl Table {
    /// Why a row is among [`Table::ragged`].
    pub fn ragged_reason(&self, row: &StringRecord) -> String {
        format!(
            "有 {0} 列，标题有 {1} 列 / it has {0} columns, the header has {1}; a comma may need quotes",
            row.len(),
            self.headers.len()
        )
    }

    /// A row as field id to text; columns that mean no field are left out.
    pub fn fields(&self, row: &StringRecord) -> BTreeMap<String, String> {
        self.map
            .columns
            .iter()
            .zip(row)
            .filter_map(|(field, text)| field.as_ref().map(|id| (id.clone(), text.to_owned())))
            .collect()
    }
}

/// Reads a table for a kind.
pub fn read(path: &Path, schema: &Schema, only: &[String]) -> Result<Table> {
    let bytes = bounded(path)?;
    let source = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        unpack(path, &bytes)?
    } else {
        bytes
    };
    let (text, encoding) = decode(path, bytes)?;
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let headers: Vec<String> = reader
        .headers()
        .map_err(|e| broken(path, &e))?
        .iter()
        .map(|header| header.trim_start_matches('\u{feff}').to_owned())
        .collect();
    if headers.len() > COLUMNS_MAX || headers.iter().map(String::len).sum::<usize>() > ROW_BYTES_MAX
    {
        return Err(Fault::failed(format!(
            "`{0}` 的标题行过长，至多 {COLUMNS_MAX} 列 / the header of `{0}` is too long: at most {COLUMNS_MAX} columns; is it a CSV with a line of titles?",
            path.display()
        )));
    }
    let names: Vec<&str> = headers.iter().map(String::as_str).collect();
    let map = header::map(schema, &names);
    refuse(path, schema, &map)?;
    let only = conditions(&headers, only)?;
    let (mut rows, mut ragged) = (Vec::new(), Vec::new());
    let mut cells = 0;
    for (number, row) in (1u64..).zip(reader.records()) {
        let row = row.map_err(|e| broken(path, &e))?;
        if row.as_slice().len() > ROW_BYTES_MAX || row.len() > COLUMNS_MAX {
            return Err(Fault::failed(format!(
                "`{0}` 第 {number} 行过长（至多 {ROW_BYTES_MAX} 字节、{COLUMNS_MAX} 列），多半是引号未闭合 / row {number} of `{0}` is too long, at most {ROW_BYTES_MAX} bytes and {COLUMNS_MAX} columns; a quote may not be closed",
                path.display()
            )));
        }
        cells += row.len();
        if cells > CELLS_MAX {
            return Err(Fault::failed(format!(
                "`{0}` 的单元格超过 {CELLS_MAX} 个，请分成几个文件 / `{0}` has more than {CELLS_MAX} cells; split it into several files",
                path.display()
            )));
        }
        if row.len() != headers.len() {
            // A quote that is not closed makes one row of many: those are not to be lost in it.
            if row.as_slice().contains('\n') {
                return Err(unclosed(path, number));
            }
            ragged.push((number, row));
            continue;
        }
        if only
            .iter()
            .all(|(column, value)| row.get(*column) == Some(value.as_str()))
        {
            rows.push((number, row));
        }
    }
    Ok(Table {
        source,
        encoding,
        headers,
        map,
        rows,
        ragged,
    })
}

fn bounded(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|e| Fault::file(path, &e))?;
    whole(path, bytes)
}

fn whole(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if bytes.len() as u64 <= FILE_BYTES_MAX {
        return Ok(bytes);
    }
    let most = FILE_BYTES_MAX / (1024 * 1024);
    Err(Fault::failed(format!(
        "`{0}` 解压后超过 {most} MiB，请分成几个文件 / `{0}` has more than {most} MiB when unpacked; split it into several files",
        path.display()
    )))
}

fn refuse(path: &Path, schema: &Schema, map: &HeaderMap) -> Result<()> {
    let mut fault = Fault::usage(format!(
        "`{}` 的标题行不可用 / the header of the file cannot be used",
        path.display()
    ));
    if !map.refused.is_empty() {
        fault.details.push(format!(
            "登记簿不收这些列，请删除 / the register refuses these columns, remove them: {}",
            map.refused.join(", ")
        ));
    }
    if !map.doubled.is_empty() {
        fault.details.push(format!(
            "多列指同一字段 / columns that mean a field twice: {}",
            map.doubled.join(", ")
        ));
    }
    if map.columns.iter().all(Option::is_none) {
        let known: Vec<&str> = schema.fields.iter().map(|f| f.name.as_str()).collect();
        fault.details.push(format!(
            "没有一列是“{}”的字段 / no column is a field of `{}`; its fields are {}",
            schema.name,
            schema.kind,
            known.join(", ")
        ));
    } else if !map.missing_required.is_empty() {
        fault.details.push(format!(
            "缺少必填列 / required columns are missing: {}",
            map.missing_required.join(", ")
        ));
    }
    if fault.details.is_empty() {
        Ok(())
    } else {
        Err(fault)
    }
}

fn conditions(headers: &[String], only: &[String]) -> Result<Vec<(usize, String)>> {
    only.iter()
        .map(|condition| {
            let (column, value) = condition
                .split_once('=')
                .ok_or_else(|| {
                    Fault::usage(format!(
                        "`--only {condition}` 应写成 列名=值 / `--only {condition}` is written COLUMN=VALUE"
                    ))
                })?;
            let at = headers.iter().position(|h| h == column).ok_or_else(|| {
                Fault::usage(format!(
                    "`--only`：文件没有 `{column}` 列，请用它有的列：{0} / `--only`: the file has no column `{column}`; it has {0}",
                    headers.join(", ")
                ))
            })?;
            Ok((at, value.to_owned()))
        })
        .collect()
}

fn broken(path: &Path, error: &csv::Error) -> Fault {
    // The error's own words may quote a value; its place is enough.
    unclosed(path, error.position().map_or(0, csv::Position::line))
}

fn unclosed(path: &Path, line: u64) -> Fault {
    Fault::failed(format!(
        "`{0}` 第 {line} 行不是完整的 CSV / line {line} of `{0}` is no whole CSV; check its quotes",
        path.display()
    ))
}

fn unpack(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let most = (bytes.len() as u64).saturating_mul(UNPACKED_TIMES_MAX);
    let most = most.clamp(UNPACKED_FREE, FILE_BYTES_MAX);
    flate2::read::MultiGzDecoder::new(bytes)
        .take(most + 1)
        .read_to_end(&mut unpacked)
        .map_err(|_| cut_short(path))?;
    if unpacked.len() as u64 > most && most < FILE_BYTES_MAX {
        return Err(Fault::failed(format!(
            "`{0}` 解压后超过自身的 {UNPACKED_TIMES_MAX} 倍，不像表格；请先自行解压核对 / `{0}` unpacks to more than {UNPACKED_TIMES_MAX} times its size, which no table does; unpack it and look at it first",
            path.display()
        )));
    }
    whole(path, unpacked)
}

/// What a packed file says when it does not unpack: it is in memory, so no disk is to blame.
fn cut_short(path: &Path) -> Fault {
    Fault::failed(format!(
        "`{0}` 解不开：压缩内容不完整或已损坏，请重新取得或重新压缩 / `{0}` does not unpack: what is packed in it is cut short or damaged; fetch it again, or pack it again",
        path.display()
    ))
}

/// UTF-8 when it is, else GBK when it is, else an error: never a guess with losses.
fn decode(path: &Path, bytes: Vec<u8>) -> Result<(String, &'static str)> {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok((text, "UTF-8")),
        Err(error) => error.into_bytes(),
    };
    // GB 18030 reads every GBK file, and the characters of names beyond it.
    let (text, found, failed) = encoding_rs::GB18030.decode(&bytes);
    if failed {
        return Err(Fault::failed(format!(
            "`{0}` 既不是 UTF-8 也不是 GBK / `{0}` is neither UTF-8 nor GBK; save it again as UTF-8",
            path.display()
        )));
    }
    // A byte order mark tells of another encoding than was tried.
    let name = if found == encoding_rs::GB18030 {
        "GBK"
    } else {
        found.name()
    };
    Ok((text.into_owned(), name))
}

/// Writes rows with one more column, the reasons, to be mended and imported again.
pub fn write_rejects(
    path: &Path,
    headers: &[String],
    rows: &[(&StringRecord, String)],
) -> Result<()> {
    let broken = |e: csv::Error| {
        Fault::failed(format!(
            "退回文件 `{0}` 写不了 / the reject file `{0}` cannot be written: {e}",
            path.display()
        ))
    };
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    {
        let mut writer = csv::WriterBuilder::new()
            .flexible(true)
            .from_writer(&mut bytes);
        let mut header = headers.to_vec();
        header.push("退回原因".into());
        writer.write_record(&header).map_err(broken)?;
        for (row, reason) in rows {
            let mut row: Vec<&str> = row.iter().collect();
            // The reason stands under its title, unless the row has too many columns.
            row.resize(row.len().max(headers.len()), "");
            row.push(reason);
            writer.write_record(&row).map_err(broken)?;
        }
        writer.flush().map_err(|e| Fault::file(path, &e))?;
    }
    store::atomic::replace(path, &bytes).map_err(|e| Fault::failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_file_that_is_cut_short_is_told_by_name_in_both_languages() {
        let path = Path::new("persons.csv.gz");
        let mut packed = Vec::new();
        let text = b"name\n".repeat(200);
        flate2::read::GzEncoder::new(text.as_slice(), flate2::Compression::default())
            .read_to_end(&mut packed)
            .unwrap();
        for bytes in [&packed[..packed.len() / 2], &[0x1f, 0x8b, 8, 0, 7]] {
            let told = unpack(path, bytes).unwrap_err().message;
            let (chinese, english) = told.split_once(" / ").unwrap();
            let name = path.display().to_string();
            assert!(
                chinese.contains(&name) && chinese.contains("请重新取得"),
                "{told}"
            );
            assert!(
                english.contains(&name) && english.contains("fetch it again"),
                "{told}"
            );
            assert!(!told.contains("deflate"), "{told}");
        }
        assert_eq!(unpack(path, &packed).unwrap(), text);
    }
}
