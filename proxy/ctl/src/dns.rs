//! `causeway dns`

use causeway_api::{DnsAnswer, DnsLookup, DnsRequest, NamesStatus, Status};
use serde_json::json;

use crate::cli::{DnsArgs, Document, Format};
use crate::daemon::Daemon;
use crate::screen::{Screen, Style};
use crate::trace::source;
use crate::{Failure, Verdict};

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    args: &DnsArgs,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let form = Format::of_document(format)?;
    let Some(name) = &args.name else { return host(daemon, screen) };
    let request = DnsRequest {
        name: name.clone(),
        record_type: args.record_type.to_uppercase(),
        from: source(&args.from, &args.namespace.namespace),
    };
    let answer: DnsAnswer = daemon.post("/v1/dns", &json!(request))?;
    match form {
        Document::Text => show(screen, &answer)?,
        Document::Json => screen.json(&json!(answer))?,
        Document::Yaml => screen.yaml(&json!(answer))?,
    }
    let found = answer.lookups.last().is_some_and(|last| !last.records.is_empty());
    Ok(Verdict::finding_if(!found))
}

fn show(screen: &mut Screen, answer: &DnsAnswer) -> Result<(), Failure> {
    for lookup in &answer.lookups {
        for (style, line) in lines(lookup) {
            screen.say_in(style, &line)?;
        }
    }
    Ok(())
}

/// The records, or the code in their place, and why.
fn lines(lookup: &DnsLookup) -> Vec<(Style, String)> {
    let DnsLookup { name, record_type, code, records, why } = lookup;
    let mut lines: Vec<(Style, String)> =
        records.iter().map(|record| (Style::Plain, record.clone())).collect();
    if records.is_empty() {
        let code = if code == "NOERROR" { "NODATA" } else { code };
        lines.push((Style::Notice, format!("{name} {record_type}: {code}")));
    }
    lines.push((Style::Plain, format!("  {why}")));
    lines
}

/// What whoever administers the host types: the host's resolver is never touched by us.
fn host(daemon: &Daemon, screen: &mut Screen) -> Result<Verdict, Failure> {
    let status: Status = daemon.get("/v1/status")?;
    let Some(names) = status.names.filter(|names| !names.servers.is_empty()) else {
        screen.complain("this node answers no names (--dns-listen off)")?;
        return Ok(Verdict::finding_if(true));
    };
    screen.say_all(&host_lines(&names))?;
    Ok(Verdict::Fine)
}

fn host_lines(names: &NamesStatus) -> Vec<String> {
    let (server, domain) = (&names.servers[0], &names.domain);
    let ip = server.ip();
    let at = if server.port() == 53 { ip.to_string() } else { server.to_string() };
    [
        "# with systemd-resolved (resolvectl status names it), until the next boot:",
        "ip link add causeway-names type dummy",
        "ip addr add 169.254.53.53/32 dev causeway-names",
        "ip link set causeway-names up",
        &format!("resolvectl dns causeway-names {at}"),
        &format!("resolvectl domain causeway-names '~{domain}'"),
        "# undo:",
        "ip link del causeway-names",
        "",
        "# without it, as the first line of /etc/resolv.conf; names outside are forwarded:",
        &format!("nameserver {ip}"),
        "# undo: remove the line",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(code: &str, records: &[&str]) -> DnsLookup {
        DnsLookup {
            name: "web.default.svc.cluster.local.".to_owned(),
            record_type: "AAAA".to_owned(),
            code: code.to_owned(),
            records: records.iter().map(|&record| record.to_owned()).collect(),
            why: "because".to_owned(),
        }
    }

    #[test]
    fn a_denial_has_its_name_in_the_place_of_records() {
        let text = |lookup: &DnsLookup| -> Vec<String> {
            lines(lookup).into_iter().map(|(_, line)| line).collect()
        };
        assert_eq!(text(&lookup("NOERROR", &["one", "two"])), ["one", "two", "  because"]);
        let denied = "web.default.svc.cluster.local. AAAA: NODATA";
        assert_eq!(text(&lookup("NOERROR", &[])), [denied, "  because"]);
        let denied = "web.default.svc.cluster.local. AAAA: NXDOMAIN";
        assert_eq!(text(&lookup("NXDOMAIN", &[])), [denied, "  because"]);
    }

    #[test]
    fn the_host_is_told_how_to_begin_and_how_to_undo() {
        let names = NamesStatus {
            domain: "cluster.local".to_owned(),
            servers: vec!["10.96.0.10:53".parse().expect("an address")],
            upstreams: Vec::new(),
        };
        let text = host_lines(&names).join("\n");
        for part in ["dns causeway-names 10.96.0.10", "'~cluster.local'", "link del", "undo"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
