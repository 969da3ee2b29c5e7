//! A process that keeps its memory to itself (进程加固): no core dump, no other process looks in.
//!
//! A fault is told and passed over: a kernel without these has the node run all the same.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keys in memory stay there: the process is not dumpable and writes no core file.
pub fn process() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let core = setrlimit(Resource::Core, none);
    let dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if core.is_err() || dumpable.is_err() {
        eprintln!("进程加固未成 / this system does not let the process keep its memory to itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_process_is_not_dumpable_and_writes_no_core() {
        process();
        let dumpable = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(dumpable, DumpableBehavior::NotDumpable);
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
    }
}
