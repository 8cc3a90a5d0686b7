//! `retail`: turns order lines in the shape of the UCI "Online Retail" data into events, one JSON document a line.
//!
//! ```text
//! 536365,85123A,WHITE HANGING HEART T-LIGHT HOLDER,6,12-01-2010 08:26,2.55,17850,United Kingdom
//!   -> Product.Created and SKU.Created (the first line with 85123A), User.Created (the first line with 17850),
//!      and after the last line of 536365 its Order.Created
//! ```
//!
//! Dirt is passed on, neither dropped nor repaired: a negative quantity or a missing customer is for the schemas to
//! refuse, with a reason. A row that cannot even be read is named in the [`Summary`], and its invoice's order is held
//! back: without that line it would be accepted, with a wrong total.
//! The same file always gives the same bytes: ids come from names and running numbers, never from chance or the clock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use csv::ByteRecord;
use uuid::Uuid;

/// Chosen once: with another namespace a second import would not be recognised as the same events.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f0c_1d3e_52a7_4b69_9c41_6ad7_e30b_95f2);
const NAME_CHARS_MAX: usize = 200; // The schemas' bound; JSON Schema counts characters, not bytes.
const COLUMNS: [&str; 8] =
    ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"];

/// What was written, by event type, and what could not be read.
#[derive(Debug, Default)]
struct Summary {
    events: BTreeMap<&'static str, u64>,
    unreadable: Vec<Unreadable>,
}

/// A row of the file; its line is counted from 1 with the header, as an editor shows it.
#[derive(Debug)]
struct Unreadable {
    line: usize,
    reason: String,
}

/// Events from order lines, as JSON Lines on stdout.
#[derive(clap::Parser)]
#[command(name = "retail")]
struct Args {
    /// In the shape of the UCI "Online Retail" data.
    csv: PathBuf,
}

fn main() -> Result<()> {
    let Args { csv: path } = clap::Parser::parse();
    let csv = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let summary = convert(&csv, &mut out).with_context(|| format!("cannot convert {}", path.display()))?;
    for (kind, count) in &summary.events {
        eprintln!("{count} {kind}");
    }
    for unreadable in &summary.unreadable {
        eprintln!("line {}: {}", unreadable.line, unreadable.reason);
    }
    anyhow::ensure!(summary.unreadable.is_empty(), "{} lines could not be read", summary.unreadable.len());
    Ok(())
}

fn convert(csv: &[u8], out: &mut dyn Write) -> Result<Summary> {
    let mut summary = Summary::default();
    let invoices = read(csv, &mut summary.unreadable)?;
    let mut events = Events { out, written: &mut summary.events, product_ids: HashMap::new(), users: HashSet::new() };
    invoices.iter().try_for_each(|invoice| events.of_invoice(invoice))?;
    events.out.flush()?;
    Ok(summary)
}

struct Invoice {
    number: String,
    lines: Vec<Line>,
    complete: bool,
}

struct Line {
    stock_code: String,
    description: String,
    quantity: i32,
    at: String,
    price: i128,
    customer: Option<i64>,
    country: String,
}

/// All invoices by their first lines: nothing in the file says which line of one is its last.
fn read(csv: &[u8], unreadable: &mut Vec<Unreadable>) -> Result<Vec<Invoice>> {
    let csv = csv.strip_prefix(b"\xef\xbb\xbf").unwrap_or(csv); // The byte order mark.
    // Bytes and flexible, so that a row of wrong length or encoding is one bad row and not the end of the file.
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(csv);
    let header = reader.byte_headers()?.clone();
    let missing: Vec<_> = COLUMNS.iter().filter(|name| !header.iter().any(|h| h == name.as_bytes())).collect();
    anyhow::ensure!(missing.is_empty(), "the header lacks {missing:?}");
    let (mut invoices, mut places) = (Vec::<Invoice>::new(), HashMap::new());
    let (mut line, mut counted) = (1, 0);
    for record in reader.byte_records() {
        let row = Row { header: &header, record: &record? };
        // Counted here, because the reader's own line number is one too low after a CR LF or an empty line.
        let mut start = row.record.position().map_or(0, |position| position.byte() as usize);
        start += csv[start..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        line += csv[counted..start].iter().filter(|byte| **byte == b'\n').count();
        counted = start;
        let number = row.text("InvoiceNo").unwrap_or_default().to_owned();
        let place = *places.entry(number.clone()).or_insert(invoices.len());
        if place == invoices.len() {
            invoices.push(Invoice { number: number.clone(), lines: Vec::new(), complete: true });
        }
        match row.line() {
            Ok(line) => invoices[place].lines.push(line),
            Err(what) => {
                invoices[place].complete = false;
                let reason = format!("{what}; so invoice {number:?} gives no Order.Created");
                unreadable.push(Unreadable { line, reason });
            }
        }
    }
    Ok(invoices)
}

struct Row<'r> {
    header: &'r ByteRecord,
    record: &'r ByteRecord,
}

impl Row<'_> {
    fn line(&self) -> Result<Line, String> {
        if self.record.len() != self.header.len() {
            return Err(format!("{} fields where the header has {}", self.record.len(), self.header.len()));
        }
        self.parsed("InvoiceNo", order_id)?;
        Ok(Line {
            stock_code: self.text("StockCode")?.to_owned(),
            description: self.text("Description")?.to_owned(),
            quantity: self.parsed("Quantity", |t| t.parse().ok())?,
            at: self.parsed("InvoiceDate", rfc3339)?,
            price: self.parsed("UnitPrice", ten_thousandths)?,
            customer: self
                .parsed("CustomerID", |t| Some(t).filter(|t| !t.is_empty()).map(str::parse).transpose().ok())?,
            country: self.text("Country")?.to_owned(),
        })
    }

    fn text(&self, column: &str) -> Result<&str, String> {
        let place = self.header.iter().position(|name| name == column.as_bytes());
        let bytes = place.and_then(|place| self.record.get(place)).ok_or_else(|| format!("{column} is missing"))?;
        std::str::from_utf8(bytes).map_err(|_| format!("{column} is not UTF-8"))
    }

    fn parsed<T>(&self, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let text = self.text(column)?;
        parse(text).ok_or_else(|| format!("{column} cannot be read: {text:?}"))
    }
}

/// `C536379` is order 536379: the letter of a cancellation stays visible in `order_number`.
fn order_id(invoice: &str) -> Option<i64> {
    invoice.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// `12-01-2010 08:26` is `2010-12-01T08:26:00Z`: the data names no zone, UTC is our choice. Only the shape is looked
/// at; a month 13 is dirt like any other, and the schema refuses it.
fn rfc3339(date: &str) -> Option<String> {
    let shape = b"00-00-0000 00:00";
    let alike = |(is, should): (u8, &u8)| if *should == b'0' { is.is_ascii_digit() } else { is == *should };
    let fits = date.len() == shape.len() && date.bytes().zip(shape).all(alike);
    fits.then(|| format!("{}-{}-{}T{}:00Z", &date[6..10], &date[0..2], &date[3..5], &date[11..16]))
}

/// Money is counted in ten-thousandths, as the full data set has prices with four decimals, and in integers, as sums
/// must be exact. The bound on the whole part keeps every sum far from overflow.
fn ten_thousandths(price: &str) -> Option<i128> {
    let (sign, amount) = price.strip_prefix('-').map_or((1, price), |rest| (-1, rest));
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let digits = format!("{whole}{fraction:0<4}");
    let fits = (1..=12).contains(&whole.len()) && fraction.len() <= 4 && digits.bytes().all(|b| b.is_ascii_digit());
    if fits { digits.parse::<i128>().ok().map(|n| sign * n) } else { None }
}

/// The exact JSON number: two decimals, and a third and fourth only where they say something.
fn decimal(amount: i128) -> String {
    let (sign, n) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
    let exact = format!("{sign}{}.{:04}", n / 10_000, n % 10_000);
    exact.strip_suffix("00").or(exact.strip_suffix('0')).unwrap_or(&exact).to_owned()
}

/// A JSON string. All else is written by hand, because a `serde_json::Value` would take money through a float.
fn text(raw: &str) -> String {
    serde_json::Value::from(raw).to_string()
}

fn event_id(kind: &str, key: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{kind}/{key}").as_bytes())
}

/// Writes events, and remembers which products and users the file has already shown.
struct Events<'a> {
    out: &'a mut dyn Write,
    written: &'a mut BTreeMap<&'static str, u64>,
    product_ids: HashMap<String, usize>,
    users: HashSet<i64>,
}

impl Events<'_> {
    /// All events of an invoice correlate to its order: a trace of the order shows what was first seen with it.
    fn of_invoice(&mut self, invoice: &Invoice) -> Result<()> {
        let correlation = event_id("Order.Created", &invoice.number);
        for line in &invoice.lines {
            if !self.product_ids.contains_key(&line.stock_code) {
                self.product_and_sku(line, correlation)?;
            }
            if let Some(id) = line.customer.filter(|id| self.users.insert(*id)) {
                self.user(id, &line.at, correlation)?;
            }
        }
        if invoice.complete { self.order(invoice, correlation) } else { Ok(()) }
    }

    /// The shop sells every product in one form, so a SKU has the number of its product.
    fn product_and_sku(&mut self, line: &Line, correlation: Uuid) -> Result<()> {
        let (id, at, price, code) = (self.product_ids.len() + 1, &line.at, decimal(line.price), text(&line.stock_code));
        self.product_ids.insert(line.stock_code.clone(), id);
        let name = text(&line.description.chars().take(NAME_CHARS_MAX).collect::<String>());
        let made = format!(r#""created_by":0,"created_at":"{at}""#);
        let product = format!(r#"{{"product_id":{id},"name":{name},"category_id":0,"status":"published",{made}}}"#);
        self.event("Product.Created", &line.stock_code, at, correlation, &product)?;
        let sku = format!(r#"{{"sku_id":{id},"product_id":{id},"sku_code":{code},"name":{name},"price":{price},"#);
        self.event("SKU.Created", &line.stock_code, at, correlation, &format!(r#"{sku}"is_active":true,{made}}}"#))
    }

    fn user(&mut self, id: i64, at: &str, correlation: Uuid) -> Result<()> {
        let name = format!("customer-{id}");
        let data = format!(r#"{{"user_id":{id},"username":"{name}","email":"{name}@example.com","created_at":"{at}","#);
        self.event("User.Created", &id.to_string(), at, correlation, &format!(r#"{data}"user_type":"customer"}}"#))
    }

    /// Time, customer and country are those of the first line. Of an address the data knows only the country: it
    /// becomes the province, the recipient is made of the customer's number, and the rest is empty.
    fn order(&mut self, invoice: &Invoice, correlation: Uuid) -> Result<()> {
        let (number, first) = (text(&invoice.number), &invoice.lines[0]);
        let id = order_id(&invoice.number).context("an invoice without a number cannot be complete")?;
        let user = first.customer.map(|id| format!(r#""user_id":{id},"#)).unwrap_or_default();
        let recipient = first.customer.map(|id| format!("Customer {id}")).unwrap_or_default();
        let status = if invoice.number.starts_with('C') { "cancelled" } else { "confirmed" };
        let total = decimal(invoice.lines.iter().map(|line| line.price * i128::from(line.quantity)).sum());
        let what =
            format!(r#""order_id":{id},"order_number":{number},{user}"total_amount":{total},"status":"{status}""#);
        let items = invoice.lines.iter().map(|line| self.item(line)).collect::<Vec<_>>().join(",");
        let place = format!(r#""phone":"","address":"","city":"","province":{}"#, text(&first.country));
        let address = format!(r#"{{"recipient":"{recipient}",{place}}}"#);
        let data = format!(r#"{{{what},"items":[{items}],"shipping_address":{address},"created_at":"{}"}}"#, first.at);
        self.event("Order.Created", &invoice.number, &first.at, correlation, &data)
    }

    fn item(&self, Line { stock_code, description, quantity, price, .. }: &Line) -> String {
        let (id, code, name) = (self.product_ids[stock_code], text(stock_code), text(description));
        let (unit, subtotal) = (decimal(*price), decimal(price * i128::from(*quantity)));
        let names = format!(r#""sku_code":{code},"product_name":{name},"sku_name":{name},"quantity":{quantity}"#);
        format!(r#"{{"product_id":{id},"sku_id":{id},{names},"unit_price":{unit},"subtotal":{subtotal}}}"#)
    }

    fn event(&mut self, kind: &'static str, key: &str, at: &str, correlation: Uuid, data: &str) -> Result<()> {
        let (id, key) = (event_id(kind, key), text(key));
        write!(self.out, r#"{{"event_id":"{id}","event_type":"{kind}","version":"1","timestamp":"{at}","#)?;
        writeln!(self.out, r#""correlation_id":"{correlation}","key":{key},"data":{data}}}"#)?;
        *self.written.entry(kind).or_default() += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(lines: &str) -> (String, Summary) {
        let mut out = Vec::new();
        let summary = convert(format!("{}\n{lines}", COLUMNS.join(",")).as_bytes(), &mut out).unwrap();
        (String::from_utf8(out).unwrap(), summary)
    }

    #[test]
    fn money_is_printed_exactly() {
        for (price, shown) in [("2.1", "2.10"), ("0", "0.00"), ("-11062.06", "-11062.06"), ("0.001", "0.001")] {
            assert_eq!(decimal(ten_thousandths(price).unwrap()), shown);
        }
        assert_eq!(decimal(ten_thousandths("0.07").unwrap() * 3), "0.21", "as floats this is 0.21000000000000002");
        assert_eq!(["", "-", ".5", "1,5", "1.23456", "1e3", "--1", "NaN"].map(ten_thousandths), [None; 8]);
    }

    #[test]
    fn dates_are_converted_by_their_shape() {
        let dates = ["12-01-2010 08:26", "13-41-2010 08:26", "12/1/2010 8:26"].map(rfc3339);
        assert_eq!(dates, [Some("2010-12-01T08:26:00Z".into()), Some("2010-13-41T08:26:00Z".into()), None]);
    }

    #[test]
    fn dirt_is_kept() {
        let (out, summary) = converted("C1,A,,-2,12-01-2010 08:26,1.50,,France\n");
        let order = out.lines().last().unwrap();
        let kept = [r#""quantity":-2,"unit_price":1.50,"subtotal":-3.00"#, r#""product_name":"""#, r#""cancelled""#];
        assert!(kept.iter().all(|dirt| order.contains(dirt)), "{order}");
        assert!(!order.contains("user_id") && !summary.events.contains_key("User.Created"));
    }

    #[test]
    fn an_order_with_an_unreadable_line_is_named_and_held_back() {
        let row = |start: &str| format!("{start},12-01-2010 08:26,1,7,France\n");
        let (out, summary) =
            converted(&[row("1,A,x,1"), row("1,B,x,two"), "\r\n1,C\r\n".into(), row("2,A,x,1")].concat());
        assert_eq!(summary.unreadable.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 5]);
        assert!(summary.unreadable[0].reason.starts_with(r#"Quantity cannot be read: "two"; so invoice "1""#));
        assert_eq!((summary.events["Order.Created"], out.contains(r#""order_number":"2""#)), (1, true));
    }
}
