//! The bed (测试辖域): a parent, its child, and a node by itself that rows are sent to.
//!
//! The child is filled in this process and then runs in one of its own, so that what is sent,
//! read and verified is there whole before the clock starts.

use std::path::{Path, PathBuf};

use record::authority::{Level, Role};
use record::id::{DivisionId, Origin, Realm};
use registry::Registry;
use registry::addresses::Transport;
use registry::config::NodeConfig;
use registry::keys::Opener;
use registry::session::{NewOperator, Session};

use super::rows;
use crate::client::Client;
use crate::commands::realm::{self, Node, OFFICER, Passphrases, Planned};
use crate::fault::{Fault, Result};
use crate::ways;

const REALM: &str = "bench.example";
const CLERK: &str = "dengji";
const OPERATORS: &[(&str, Role)] = &[(CLERK, Role::Clerk)];

const PLAN: [Planned; 3] = [
    Planned {
        division: "parent",
        name: "上级",
        level: Level::Town,
        code: None,
        parent: None,
        operators: &[],
    },
    Planned {
        division: "child",
        name: "下级",
        level: Level::Community,
        code: None,
        parent: Some(0),
        operators: OPERATORS,
    },
    Planned {
        division: "desk",
        name: "窗口",
        level: Level::Community,
        code: None,
        parent: None,
        operators: OPERATORS,
    },
];
const PARENT: usize = 0;
const CHILD: usize = 1;
const DESK: usize = 2;

/// The nodes to measure on.
pub struct Bed {
    dir: PathBuf,
    passphrases: Passphrases,
    parent: Vec<Node>,
    child: Option<Node>,
}

impl Bed {
    /// Starts the parent and has the child join it; the child does not run yet.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::make(dir, Transport::Tcp, |_| ())
    }

    /// As [`Bed::new`], the parent being reached at another address, which leads to it: `begin` is
    /// told where it is before the child joins.
    pub fn behind(dir: &Path, address: &str, begin: impl FnOnce(String)) -> Result<Self> {
        Self::make(dir, Transport::Tcp, |node| {
            begin(std::mem::replace(&mut node.listen, address.to_owned()));
        })
    }

    /// As [`Bed::new`], the child being set to dial over a transport.
    pub fn over(dir: &Path, transport: Transport) -> Result<Self> {
        Self::make(dir, transport, |_| ())
    }

    fn make(dir: &Path, transport: Transport, meanwhile: impl FnOnce(&mut Node)) -> Result<Self> {
        let passphrases = realm::passphrases(&PLAN)?;
        let plan = &PLAN[PARENT];
        let parent_dir = dir.join(plan.division);
        realm::make(REALM, plan, &parent_dir, &[], &passphrases)?;
        if transport == Transport::Quic {
            let mut config = NodeConfig::read(&parent_dir)?;
            config.listen.push_str(",/ip4/127.0.0.1/udp/0/quic-v1");
            config.write(&parent_dir)?;
        }
        let mut node = realm::start(plan, parent_dir)?;
        let addresses = ways::read(&node.listen)?;
        node.listen = addresses.preferring(transport).to_string();
        meanwhile(&mut node);
        let parent = vec![node];
        let plan = &PLAN[CHILD];
        realm::make(REALM, plan, &dir.join(plan.division), &parent, &passphrases)?;
        Ok(Self {
            dir: dir.to_owned(),
            passphrases,
            parent,
            child: None,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn parent_dir(&self) -> PathBuf {
        self.dir.join(PLAN[PARENT].division)
    }

    /// The child, which was started before.
    pub fn running_child(&self) -> Result<&Node> {
        let child = self.child.as_ref();
        child.ok_or_else(|| Fault::failed("the child does not run"))
    }

    pub fn child_dir(&self) -> PathBuf {
        self.dir.join(PLAN[CHILD].division)
    }

    /// The child's shard of the kind that is measured.
    pub fn shard(&self) -> Result<Origin> {
        let words = |e: record::id::IdError| Fault::failed(e.to_string());
        let realm = Realm::new(REALM).map_err(words)?;
        let division = DivisionId::new(PLAN[CHILD].division).map_err(words)?;
        Ok(Origin::new(&realm, &division, &rows::kind()?))
    }

    fn phrase(&self, plan: &Planned, login: &'static str) -> &str {
        realm::phrase(&self.passphrases, plan.division, login)
    }

    /// The child, open in this process, and a clerk of it.
    pub fn open_child(&self) -> Result<(Registry, Session)> {
        let plan = &PLAN[CHILD];
        let registry = Registry::open(&self.child_dir(), &Opener::File, api::now())?;
        let officer = registry.login(OFFICER, self.phrase(plan, OFFICER), api::now())?;
        let new = NewOperator {
            login: CLERK.to_owned(),
            passphrase: self.phrase(plan, CLERK).to_owned(),
            role: Role::Clerk,
            grid: None,
        };
        registry.enrol_operator(Some(&officer), &new, api::now())?;
        realm::keep_passphrase(&self.child_dir(), CLERK, &new.passphrase)?;
        let clerk = registry.login(CLERK, self.phrase(plan, CLERK), api::now())?;
        Ok((registry, clerk))
    }

    /// A running node that holds nothing, and a clerk of it.
    pub fn desk(&self) -> Result<(Node, Client)> {
        let plan = &PLAN[DESK];
        let dir = self.dir.join(plan.division);
        realm::make(REALM, plan, &dir, &[], &self.passphrases)?;
        let node = realm::start(plan, dir)?;
        realm::enrol_operators(&node, &self.passphrases, |_| String::new())?;
        let client = realm::client(&node, CLERK, &self.passphrases)?;
        Ok((node, client))
    }

    /// The child in a process of its own; started when it does not run.
    pub fn child(&mut self) -> Result<&Node> {
        let node = match self.child.take() {
            Some(node) => node,
            None => realm::start(&PLAN[CHILD], self.child_dir())?,
        };
        Ok(self.child.insert(node))
    }

    /// A clerk of the running child.
    pub fn clerk(&mut self) -> Result<Client> {
        self.child()?;
        let node = self
            .child
            .as_ref()
            .ok_or_else(|| Fault::failed("the child was just started"))?;
        realm::client(node, CLERK, &self.passphrases)
    }

    pub fn stop_parent(&mut self) {
        self.parent.clear();
    }

    pub fn stop_child(&mut self) {
        self.child = None;
    }
}
