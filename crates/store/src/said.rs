//! What the system says of a file, in words for an operator: Chinese, English, what to do.
//!
//! Owns the wording, one place for every crate that touches files.
//! Refuses to name the file: whoever tells it says which one it was.

use std::io::{Error, ErrorKind};

/// Why the system refused and what to do, in Chinese and in English; without a full stop.
///
/// The English half ends with the system's own words where these add something: its number, or
/// all of them when the kind is not among those known here.
pub fn said(error: &Error) -> (&'static str, String) {
    let (chinese, english) = match error.kind() {
        ErrorKind::NotFound => (
            "没有这个文件或目录，请核对路径，磁盘是否已挂载",
            "there is no such file or folder; check the path, and that its disk is mounted",
        ),
        ErrorKind::PermissionDenied => (
            "没有权限，请检查属主和权限，或换一个用户执行",
            "permission is denied; check owner and permissions, or run it as another user",
        ),
        ErrorKind::AlreadyExists => (
            "已经存在，请换一个名字",
            "it is there already; choose another name",
        ),
        ErrorKind::IsADirectory => (
            "是目录，不是文件，请写明文件",
            "it is a folder, not a file; name a file",
        ),
        ErrorKind::NotADirectory => (
            "路径中有一段不是目录，请核对路径",
            "a part of the path is no folder; check the path",
        ),
        ErrorKind::DirectoryNotEmpty => (
            "目录不是空的，请换一个",
            "the folder is not empty; choose another",
        ),
        ErrorKind::ReadOnlyFilesystem => (
            "磁盘只读，请换一处，或重新挂载",
            "the disk is read-only; choose another place, or mount it anew",
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => (
            "没有空间，请腾出空间再试",
            "there is no room; make room and try again",
        ),
        ErrorKind::AddrInUse => (
            "地址已被占用，请停止占用者，或换一个端口",
            "the address is taken; stop whoever has it, or choose another port",
        ),
        ErrorKind::AddrNotAvailable => (
            "本机没有这个地址，请改用本机的地址",
            "this machine has no such address; choose one that it has",
        ),
        ErrorKind::ConnectionRefused => (
            "对方没有在此监听，请核对地址，对方是否在运行",
            "nobody listens there; check the address, and that the other side runs",
        ),
        ErrorKind::TimedOut => (
            "对方没有应答，请检查线路后再试",
            "no answer came; check the line and try again",
        ),
        _ => return ("系统拒绝，请检查路径、权限和磁盘", unknown(error)),
    };
    let number = error.raw_os_error();
    let number = number.map_or_else(String::new, |number| format!(" (os error {number})"));
    (chinese, format!("{english}{number}"))
}

fn unknown(error: &Error) -> String {
    format!("the system refused: {error}; check path, permissions and disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_told_in_both_languages_with_what_to_do() {
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::PermissionDenied,
            ErrorKind::AlreadyExists,
            ErrorKind::IsADirectory,
            ErrorKind::NotADirectory,
            ErrorKind::DirectoryNotEmpty,
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::StorageFull,
            ErrorKind::AddrInUse,
            ErrorKind::AddrNotAvailable,
            ErrorKind::ConnectionRefused,
            ErrorKind::TimedOut,
            ErrorKind::Other,
        ] {
            let (chinese, english) = said(&Error::from(kind));
            assert!(!chinese.is_ascii() && chinese.contains('请'), "{chinese}");
            assert!(english.is_ascii() && english.contains("; "), "{english}");
        }
    }

    #[test]
    fn the_systems_number_is_kept_and_unknown_words_are_not_lost() {
        let missing = std::fs::File::open("/nowhere/at-all").unwrap_err();
        assert!(said(&missing).1.ends_with("(os error 2)"));
        let odd = Error::other("the medium hums");
        assert!(said(&odd).1.contains("the medium hums"));
    }
}
