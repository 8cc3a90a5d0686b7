//! What the documents say of the code, held against the code.

use super::source::{Row, Source, cells, files, ident, none, read, root, sources, table};

const LIMITS: &str = "host/core/src/limits.rs";
const CAPABILITIES: &str = "host/sandbox/src/capability/mod.rs";
const COMMANDS: &str = "host/tidemill/src/cli/mod.rs";
const DISPOSITION: &str = "host/core/src/policy/disposition.rs";
const METRICS: &str = "host/runtime/src/observe/metrics.rs";
const OUTCOME: &str = "host/core/src/model/outcome.rs";
const TASKS: &str = "host/process/src/tasks/table.rs";
const REASONS: &str = "host/core/src/model/dead_letter.rs";

#[test]
fn docs_tables_match_the_code() {
    let mut findings = Vec::new();
    capabilities(&mut findings);
    limits(&mut findings);
    commands(&mut findings);
    disposition(&mut findings);
    reasons(&mut findings);
    crashes(&mut findings);
    metrics(&mut findings);
    tasks(&mut findings);
    none("the tables of the documents say what the code says", &findings);
}

/// Every test that the table of faults names is there, and no row is without a word on its test.
#[test]
fn faults_name_tests_that_exist() {
    let page = "docs/guides/faults.md";
    let code: String = sources(&["tests", "host"]).iter().map(|source| source.raw.as_str()).collect();
    let mut findings = Vec::new();
    for row in table(page, "tests") {
        let [_, _, _, tests] = &row.cells[..] else {
            findings.push(format!("{page}:{}: a row has four cells", row.line));
            continue;
        };
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && !tests.starts_with("not tested") {
            findings.push(format!("{page}:{}: names no test; write `not tested` and why", row.line));
        }
        for name in names {
            let there = code.contains(&format!("fn {name}("));
            // Some tests are rows of a macro's table, stories in a list, or modules with one for each backend.
            let forms = [format!("{name}: {{"), format!("{name} =>"), format!("mod {name} {{")];
            let listed = code.lines().any(|line| forms.iter().any(|form| line.trim_start().starts_with(form)));
            if !there && !listed {
                findings.push(format!("{page}:{}: there is no test `{name}`; mend the row", row.line));
            }
        }
    }
    none("the table of faults names tests that exist", &findings);
}

/// Where the page of limits names a constant and a file, the constant is in it.
#[test]
fn bounds_lie_where_the_page_says() {
    let page = "docs/guides/limits.md";
    let (mut findings, mut found) = (Vec::new(), 0);
    for (at, line) in read(page).lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
        let quoted: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        let is_constant = |part: &str| part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        let mut names = Vec::new();
        for part in quoted {
            if is_constant(part) {
                names.push(part);
            } else if part.starts_with("host/") {
                let text = read(part);
                for name in names.drain(..) {
                    found += 1;
                    // Lua declares several at once.
                    let wanted = if part.ends_with(".lua") { name.to_owned() } else { format!("const {name}:") };
                    if !text.contains(&wanted) {
                        findings.push(format!("{page}:{}: `{name}` is not in {part}", at + 1));
                    }
                }
            }
        }
    }
    assert!(found > 30, "the rows are there: {found}");
    none("a constant on the page of limits lies in the file beside it", &findings);
}

/// A newcomer plans an hour by these numbers.
#[test]
fn the_reading_path_says_how_long_it_is() {
    let page = "ARCHITECTURE.md";
    let mut findings = Vec::new();
    for row in table(page, "lines") {
        let path = row.cells[0].trim_matches('`');
        let (said, is) = (row.cells[1].parse::<usize>().unwrap_or_default(), read(path).lines().count());
        if said.abs_diff(is) * 10 > is {
            findings.push(format!("{page}:{}: {path} has {is} lines; mend the row", row.line));
        }
    }
    none("the reading path tells the length of its files, to a tenth", &findings);
}

/// Compares what a table lists with what the code has, both ways.
fn compare(page: &str, rows: &[(usize, String)], code: &str, wanted: &[String], findings: &mut Vec<String>) {
    for (line, row) in rows.iter().filter(|(_, row)| !wanted.contains(row)) {
        findings.push(format!("{page}:{line}: {row}: not so in {code}; mend the row or take it out"));
    }
    for missing in wanted.iter().filter(|wanted| !rows.iter().any(|(_, row)| row == *wanted)) {
        findings.push(format!("{page}: no row says {missing}, as {code} does; add it"));
    }
}

fn plain(cell: &str) -> String {
    cell.replace('`', "")
}

/// What each task's death means, in the words that its row begins with.
fn tasks(findings: &mut Vec<String>) {
    let page = "docs/guides/operating.md";
    let text = read(TASKS);
    let list = text.split_once("\ntasks! {").and_then(|(_, rest)| rest.split_once("\n}")).map_or("", |(list, _)| list);
    let mut wanted = Vec::new();
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("///")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, name, end] = words[..] else {
            findings.push(format!("{TASKS}: `{line}`: a row is Name \"name\" End"));
            continue;
        };
        let end = match end {
            "Restarted" => "restarted",
            "EndsHost" => "host ends",
            _ => "told",
        };
        wanted.push(format!("{}, {end}", name.trim_matches('"')));
    }
    let said = |row: &Row| {
        let end = plain(row.cells.get(2).map_or("", String::as_str));
        let end = end.split([';', ':']).next().unwrap_or_default().to_owned();
        (row.line, format!("{}, {end}", plain(&row.cells[0])))
    };
    let rows: Vec<_> = table(page, TASKS).iter().map(said).collect();
    compare(page, &rows, TASKS, &wanted, findings);
}

fn capabilities(findings: &mut Vec<String>) {
    let page = "docs/guides/capabilities.md";
    let rows = table(page, CAPABILITIES);
    let text = read(CAPABILITIES);
    let list = text.split_once("CAPABILITIES: &[Capability]").map_or("", |(_, list)| list);
    let mut wanted = Vec::new();
    for block in list.split("Capability {").skip(1) {
        let value = |field: &str| {
            let line = block.lines().find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(": "));
            line.unwrap_or_default().trim_end_matches(',').trim_matches('"').to_owned()
        };
        let grant = value("granted");
        let grant = grant.rsplit_once("terms.").map_or("always", |(_, rest)| ident(rest)).to_owned();
        let (_, interfaces) = block.split_once("interfaces:").unwrap_or_default();
        let names = interfaces.split("name: \"").skip(1).filter_map(|rest| rest.split('"').next());
        let names = names.collect::<Vec<_>>().join(", ");
        wanted.push(format!("{} {names}@{}, granted by {grant}", value("name"), value("since")));
    }
    let said = |row: &Row| {
        let [name, interface, version, grant] = &row.cells[..4] else { return (row.line, String::new()) };
        let (grant, version) = (plain(grant), plain(version));
        (row.line, format!("{} {}@{version}, granted by {}", plain(name), plain(interface), ident(&grant)))
    };
    let rows: Vec<_> = rows.iter().filter(|row| row.cells.len() >= 4).map(said).collect();
    compare(page, &rows, CAPABILITIES, &wanted, findings);
}

fn limits(findings: &mut Vec<String>) {
    let page = "docs/guides/limits.md";
    let rows = table(page, LIMITS);
    let text = read(LIMITS);
    let mut wanted = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.split_once('=').map_or("", |(_, value)| value).trim().trim_end_matches(';');
        match written(value) {
            Some(value) => wanted.push(format!("{name} = {value}")),
            None => {
                findings.push(format!("{LIMITS}: {name}: teach `written` in tests/it/tidy/docs.rs to read `{value}`"))
            }
        }
    }
    let said: Vec<_> =
        rows.iter().map(|row| (row.line, format!("{} = {}", plain(&row.cells[0]), plain(&row.cells[1])))).collect();
    compare(page, &said, LIMITS, &wanted, findings);
    let config = read("host/config/src/lib.rs") + &read("host/config/src/handler.rs");
    for row in &rows {
        let key = row.cells.get(2).map(|cell| plain(cell)).unwrap_or_default();
        let field = key.rsplit('.').next().unwrap_or_default();
        if !field.is_empty() && !config.contains(&format!("pub {field}:")) {
            findings.push(format!("{page}:{}: host/config/src has no key `{key}`; mend the row", row.line));
        }
    }
}

/// A bound as the page writes it: `1 MiB`, `256`, `100 000`, `5 min`.
fn written(value: &str) -> Option<String> {
    let number = |text: &str| text.replace('_', "").parse::<u64>().ok();
    let inner = |name: &str| number(value.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?);
    if let Some(gib) = inner("ByteSize::gib") {
        return Some(format!("{gib} GiB"));
    }
    if let Some(mib) = inner("ByteSize::mib") {
        return Some(format!("{mib} MiB"));
    }
    if let Some(kib) = inner("ByteSize::kib") {
        return Some(format!("{kib} KiB"));
    }
    if let Some(ms) = inner("Duration::from_millis") {
        return Some(format!("{ms} ms"));
    }
    match inner("Duration::from_secs") {
        Some(secs) if secs % 3600 == 0 => Some(format!("{} h", secs / 3600)),
        Some(secs) if secs % 60 == 0 => Some(format!("{} min", secs / 60)),
        Some(secs) => Some(format!("{secs} s")),
        None => number(value).map(thousands),
    }
}

fn thousands(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{} {:03}", thousands(number / 1000), number % 1000),
    }
}

fn commands(findings: &mut Vec<String>) {
    let mut wanted = Vec::new();
    for (variant, payload) in variants(&source(COMMANDS)) {
        match payload.strip_suffix("::Command") {
            None => wanted.push(variant),
            Some(module) => {
                let file = format!("host/tidemill/src/cli/{module}.rs");
                let file =
                    if root().join(&file).exists() { file } else { format!("host/tidemill/src/cli/{module}/mod.rs") };
                wanted.extend(variants(&source(&file)).into_iter().map(|(name, _)| format!("{variant} {name}")));
            }
        }
    }
    let is_word = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    let said = |row: &Row| {
        let cell = plain(&row.cells[0]);
        (row.line, cell.split(' ').take_while(is_word).collect::<Vec<_>>().join(" "))
    };
    let rows: Vec<_> = table("README.md", COMMANDS).iter().map(said).collect();
    compare("README.md", &rows, COMMANDS, &wanted, findings);
}

fn source(path: &str) -> Source {
    Source::new(path.to_owned(), read(path))
}

/// The variants of `enum Command`, as they are typed, and what each one carries.
fn variants(source: &Source) -> Vec<(String, String)> {
    let open = source.code.find("enum Command").and_then(|at| source.body_or_end(at));
    let Some(open) = open else { panic!("{}: has no `enum Command`; mend tests/it/tidy/docs.rs", source.path) };
    let body = source.block(open);
    let body = &source.code[body.start + 1..body.end - 1];
    let (mut found, mut depth, mut begins) = (Vec::new(), 0, true);
    for (at, c) in body.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            'A'..='Z' if begins && depth == 0 => {
                let name = ident(&body[at..]);
                let payload = body[at + name.len()..].strip_prefix('(').and_then(|rest| rest.split_once(')'));
                found.push((typed(name), payload.map_or("", |(inner, _)| inner).to_owned()));
                begins = false;
            }
            _ => {}
        }
    }
    found
}

/// `DryRun` -> dry-run
fn typed(variant: &str) -> String {
    let dashed = variant.char_indices().map(|(at, c)| {
        let dash = if at > 0 && c.is_ascii_uppercase() { "-" } else { "" };
        format!("{dash}{}", c.to_ascii_lowercase())
    });
    dashed.collect()
}

/// The page shows the very rows that stand above `decide`.
fn disposition(findings: &mut Vec<String>) {
    let page = "docs/guides/retries-and-dead-letters.md";
    let text = read(DISPOSITION);
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! ")).filter(|line| line.starts_with('|')).skip(2);
    let wanted: Vec<String> = rows.map(|row| cells(row).join(" | ")).collect();
    let said: Vec<_> = table(page, DISPOSITION).iter().map(|row| (row.line, row.cells.join(" | "))).collect();
    compare(page, &said, DISPOSITION, &wanted, findings);
}

fn reasons(findings: &mut Vec<String>) {
    let page = "docs/guides/retries-and-dead-letters.md";
    let text = read(REASONS);
    let arms = text.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \""));
    let wanted: Vec<String> = arms.map(|(_, name)| name.trim_end_matches("\",").to_owned()).collect();
    let said: Vec<_> = table(page, REASONS).iter().map(|row| (row.line, plain(&row.cells[0]))).collect();
    compare(page, &said, REASONS, &wanted, findings);
}

/// The words of each list, one line a row: `Trap "trap"`.
fn crashes(findings: &mut Vec<String>) {
    let page = "docs/guides/limits.md";
    let text = read(OUTCOME);
    for list in ["Crash", "Truncation"] {
        let rows = text.split_once(&format!(" {list} {{\n")).map_or("", |(_, rest)| rest);
        let rows = rows.split_once("\n    }").map_or("", |(rows, _)| rows).lines().map(str::trim);
        let rows = rows.filter(|line| !line.starts_with("//"));
        let wanted: Vec<String> = rows.filter_map(|line| Some(line.split('"').nth(1)?.to_owned())).collect();
        let said = |row: &Row| (row.line, plain(&row.cells[0]));
        let said: Vec<_> = table(page, &format!("{OUTCOME} {list}")).iter().map(said).collect();
        compare(page, &said, OUTCOME, &wanted, findings);
    }
}

/// The rows of each table in the code against those of the page: name, type, labels.
fn metrics(findings: &mut Vec<String>) {
    let page = "docs/guides/metrics.md";
    let text = read(METRICS);
    for list in ["PROCESS_ROWS", "BACKEND_ROWS"] {
        let rows = text.split_once(&format!(" {list}\n")).map_or("", |(_, rest)| rest);
        let rows = rows.split_once("\n}").map_or("", |(rows, _)| rows);
        let wanted: Vec<String> = rows.lines().filter(|line| !line.trim().is_empty()).map(metric).collect();
        let said = |row: &Row| (row.line, plain(&row.cells[..3].join(" | ")));
        let said: Vec<_> = table(page, &format!("{METRICS} {list}")).iter().map(said).collect();
        compare(page, &said, METRICS, &wanted, findings);
    }
}

/// `lag: Gauge "tidemill_lag" [handler stream] "..."` -> tidemill_lag | gauge | handler, stream
fn metric(line: &str) -> String {
    let (kind, rest) = line.split_once(": ").and_then(|(_, rest)| rest.split_once(" \"")).unwrap_or_default();
    let (name, rest) = rest.split_once("\" [").unwrap_or_default();
    let labels = rest.split(']').next().unwrap_or_default().replace(' ', ", ");
    format!("{name} | {} | {labels}", kind.to_lowercase())
}

#[test]
fn docs_lead_somewhere() {
    let pages = files(".", ".md").into_iter().filter(|page| !page.contains('/') || page.starts_with("docs/"));
    let pages: Vec<(String, String)> = pages.map(|page| (page.clone(), read(&page))).collect();
    let (mut findings, mut linked) = (Vec::new(), Vec::new());
    for (page, text) in &pages {
        let folder = root().join(page).with_file_name("");
        for (at, line) in text.lines().enumerate() {
            for target in links(line) {
                match folder.join(target).canonicalize() {
                    Ok(found) => linked.push(found),
                    Err(_) => findings.push(format!("{page}:{}: the link to {target} leads nowhere; mend it", at + 1)),
                }
            }
            for path in paths(line).filter(|path| !root().join(path).exists()) {
                findings.push(format!("{page}:{}: there is no {path}; name what is there", at + 1));
            }
        }
    }
    for (page, _) in pages.iter().filter(|(page, _)| page.starts_with("docs/")) {
        if root().join(page).canonicalize().is_ok_and(|page| !linked.contains(&page)) {
            findings.push(format!("{page}: no page links to it; add it to the index or the README"));
        }
    }
    none("links and paths in the documents lead somewhere, and every page is linked", &findings);
}

/// The files that Markdown links on this line point to.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let targets = targets.map(|(target, _)| target.split('#').next().unwrap_or(target));
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

/// Paths of this project in backticks. What has a placeholder in it, or is built, need not be there.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let begins = ["host/", "tests/", "xtask/", "plugins/", "docs/", "wit/", "schemas/", "benches/"];
    let ours = move |path: &&str| begins.iter().any(|begin| path.starts_with(begin));
    let concrete = |path: &&str| {
        let placeholder = path.split(['/', '.']).any(|part| part == "NAME" || part == "X");
        !placeholder && !path.contains(['*', '<', ' ', '{']) && !path.starts_with("plugins/dist")
    };
    quoted.filter(ours).filter(concrete)
}
