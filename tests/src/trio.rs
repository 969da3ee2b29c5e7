//! Three running nodes of one realm: a district, a community under it, and a department of the
//! district, each a process.

use std::path::Path;

use crate::site::{Running, Site, records_in};
use crate::until;

/// Whether a node holds as much of a ledger as another: of the authority of the node above, it knows
/// whom that chartered.
pub fn has_all_of(ledger: &str, node: &Running, other: &Running) -> bool {
    let size = |node: &Running| {
        let status = node.http.status();
        let ledgers = status["ledgers"].as_array().unwrap().clone();
        let mut of = ledgers.into_iter();
        let line = of.find(|l| l["origin"].as_str().unwrap().ends_with(ledger));
        line.and_then(|line| line["size"].as_u64())
    };
    let held = size(node);
    held.is_some() && held >= size(other)
}

/// Three running nodes.
#[derive(Debug)]
pub struct Trio {
    /// `jiangjin`, the root.
    pub district: Running,
    /// `jinfu`, with the clerk `dengji`, the grid worker `wangge` and the auditor `shenji`.
    pub community: Running,
    /// `minzheng`, with the officer `jingban`.
    pub department: Running,
}

impl Trio {
    /// Makes and starts the nodes in a directory.
    pub fn start(base: &Path, grid: &str, env: &[(&str, &str)]) -> Self {
        let district = Site::root(base, "jiangjin", "district");
        district.enrol("shenji", "auditor", None);
        let district = district.start_with(env);
        let community = Site::join(base, &district, "jinfu", "community");
        community.enrol("dengji", "clerk", None);
        community.enrol("wangge", "grid-worker", Some(grid));
        community.enrol("shenji", "auditor", None);
        let department = Site::join(base, &district, "minzheng", "department");
        department.enrol("jingban", "department-officer", None);
        Self {
            district,
            community: community.start_with(env),
            department: department.start_with(env),
        }
    }

    /// Grants the department some fields of the community's persons, and waits until they are there.
    pub fn grant(&self, fields: &str, rows: &[&str]) {
        until("the department's charter reaches the community", || {
            has_all_of("jiangjin/authority", &self.community, &self.district)
        });
        let mut args = vec![
            "grant",
            "make",
            "person",
            "--as",
            "anquan",
            "--holder",
            "minzheng",
            "--fields",
            fields,
            "--purpose",
            "welfare",
            "--basis",
            "社会救助暂行办法 第九条",
            "--assessment",
            "PIA-1",
        ];
        args.extend(rows.iter().flat_map(|row| ["--where", row]));
        self.community.site.json(args);
        until("the department's subset", || {
            records_in(&self.department.http.status(), "person") > 0
        });
    }

    /// Waits until the district holds every ledger of the community, and has cosigned it.
    pub fn converge(&self) {
        converge(&self.community, &self.district);
    }
}

/// Waits until a parent holds every own ledger of a child at the same root, cosigned.
pub fn converge(child: &Running, parent: &Running) {
    until("the parent holds what the child has", || {
        let above = parent.http.status();
        let above = above["ledgers"].as_array().unwrap();
        let below = child.http.status();
        let mut own = below["ledgers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|l| l["own"] == true);
        own.all(|ledger| {
            ledger["cosigned"] == ledger["size"]
                && above.iter().any(|held| {
                    ["origin", "size", "root"]
                        .iter()
                        .all(|key| held[*key] == ledger[*key])
                })
        })
    });
}
