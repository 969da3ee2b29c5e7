//! Findings about charters: chain, validity, revocation, and who issued them.

use record::authority::{Charter, CharterError, Statement, verify_chain};
use record::entry::Entry;
use record::id::Hash;

use super::{Auditor, CharterLine, Severity};
use crate::error::Result;

/// A charter that ends within this time is worth a warning.
const SOON_MILLIS: u64 = 30 * 24 * 3600 * 1000;

impl Auditor<'_> {
    pub(super) fn charters(&mut self) -> Result<Vec<CharterLine>> {
        self.issued()?;
        let authority = self.view.authority();
        let charters: Vec<Charter> = authority.charters().cloned().collect();
        let mut lines = Vec::new();
        for charter in &charters {
            let state = self.charter(charter)?;
            let roster = self.rosters.get(&charter.division);
            lines.push(CharterLine {
                division: charter.division.clone(),
                name: charter.name.clone(),
                parent: charter.parent.clone(),
                serial: charter.serial,
                not_after: charter.not_after,
                state,
                operators: roster.map_or(0, |r| r.enrolled().len()),
            });
        }
        Ok(lines)
    }

    /// Every charter that an authority ledger states must be signed by that ledger's node.
    fn issued(&mut self) -> Result<()> {
        let view = self.view;
        for origin in view.origins()? {
            if origin.grant_id().is_some() || origin.ledger().as_str() != "authority" {
                continue;
            }
            let issuer = origin.division();
            let keys = view.authority().charters_ever(&issuer);
            let mut forged = Vec::new();
            let mut strangers = Vec::new();
            view.walk(&origin, |at, _, entry| {
                if let Entry::Authority(entry) = entry
                    && let Statement::Charter(charter) = entry.statement
                {
                    let mut keys = keys.iter().map(|issuer| &issuer.keys.sign);
                    let signed = keys.any(|key| charter.verify(key).is_ok());
                    if charter.division == issuer && charter.parent != issuer {
                        // The node's own charter, which its parent's ledger states too.
                    } else if charter.parent != issuer {
                        strangers.push((at, charter.division));
                    } else if !signed {
                        forged.push((at, charter.division));
                    }
                }
                Ok(())
            })?;
            for (at, division) in forged {
                self.find(
                    Severity::Fault,
                    "charter-signature",
                    &origin,
                    format!("第 {at} 条：`{division}` 的节点证书不是 `{issuer}` 的密钥所签"),
                    format!("entry {at}: the charter of `{division}` is not signed by any key of `{issuer}`"),
                );
            }
            for (at, division) in strangers {
                self.find(
                    Severity::Fault,
                    "charter-stranger",
                    &origin,
                    format!("第 {at} 条：`{issuer}` 无权为 `{division}` 签发节点证书"),
                    format!("entry {at}: `{issuer}` states a charter of `{division}`, which is not under it"),
                );
            }
        }
        Ok(())
    }

    fn charter(&mut self, charter: &Charter) -> Result<&'static str> {
        let view = self.view;
        let authority = view.authority();
        let mut chain = vec![charter.clone()];
        for above in authority.ancestors(&charter.division) {
            chain.extend(authority.charter(&above).cloned());
        }
        let root = view.config().root_key()?;
        let revoked = |id: &Hash| authority.revoked(id);
        let result = verify_chain(&chain, &view.config().realm, &root, self.now, revoked);
        let division = &charter.division;
        Ok(match result {
            Ok(()) => {
                if charter.not_after.0.saturating_sub(self.now.0) < SOON_MILLIS {
                    self.find(
                        Severity::Warning,
                        "charter-ends-soon",
                        division,
                        format!("`{division}` 的节点证书 30 天内到期"),
                        format!(
                            "the charter of `{division}` ends within 30 days; have `{}` renew it",
                            charter.parent
                        ),
                    );
                }
                "valid"
            }
            Err(CharterError::Revoked { division: whose }) if whose == *division => {
                self.find(
                    Severity::Warning,
                    "charter-revoked",
                    division,
                    format!("`{division}` 的节点证书已吊销，尚未重新签发"),
                    format!("the charter of `{division}` was revoked and not replaced"),
                );
                "revoked"
            }
            Err(error) => {
                let state = match &error {
                    CharterError::Expired { .. } => "expired",
                    CharterError::Revoked { .. } => "revoked",
                    _ => "broken",
                };
                let zh = match state {
                    "expired" => "的节点证书或其上级的证书不在有效期内",
                    "revoked" => "的上级节点证书已吊销",
                    _ => "的节点证书不能追溯到辖域之根",
                };
                self.find(
                    Severity::Fault,
                    "charter",
                    division,
                    format!("`{division}` {zh}"),
                    error.to_string(),
                );
                state
            }
        })
    }
}
