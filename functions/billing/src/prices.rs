//! The price book: what a million tokens of a model cost. Versions are only added; a turn records which one priced it.

use astra_host::fields::{Text, present};
use astra_host::paging::PageBody;
use astra_host::routes::{Unread, word};
use astra_host::{Call, Failure, Host};
use astra_kernel::money::{UsdAmount, usd_number};
use astra_kernel::{LongContext, NanoUsd, Permission, Problem, Timestamp};
use astra_store::billing::{NewPrice, PriceRow, Tier};
use axum::Json;
use serde::{Deserialize, Serialize};

/// A version of a model's price. Amounts are per million tokens.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Price)]
pub(crate) struct PriceView {
    /// The provider.
    provider: String,
    /// The model; one that ends in `*` is a prefix. The exact name wins, then the longest prefix.
    model: String,
    /// What it is the price of.
    tier: Tier,
    /// Counts up with each change, over both tiers.
    version: i32,
    /// Input, nano-dollars.
    #[schema(value_type = i64)]
    input_nano_usd_per_mtok: NanoUsd,
    /// Input, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    input_usd_per_mtok: NanoUsd,
    /// Input from the provider's cache, nano-dollars.
    #[schema(value_type = i64)]
    cached_input_nano_usd_per_mtok: NanoUsd,
    /// Input from the provider's cache, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    cached_input_usd_per_mtok: NanoUsd,
    /// Output, nano-dollars.
    #[schema(value_type = i64)]
    output_nano_usd_per_mtok: NanoUsd,
    /// Output, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    output_usd_per_mtok: NanoUsd,
    /// The model bills tokens that it does not stream (reasoning): a turn holds its whole maximum.
    holds_maximum: bool,
    /// The prices of a call whose prompt is long, of all its tokens; null where they are the same.
    #[schema(required = true)]
    long_context: Option<LongContextView>,
    /// Where the price is from.
    #[schema(required = true)]
    source: Option<String>,
    /// From when it is used.
    #[schema(value_type = String, format = DateTime)]
    valid_from: Timestamp,
}

/// The prices of a call whose prompt is longer than so many tokens, of all its tokens. Amounts are per million tokens.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LongContextPrice)]
pub(crate) struct LongContextView {
    /// The longest prompt that the other prices are for.
    above_tokens: u64,
    /// Input, nano-dollars.
    input_nano_usd_per_mtok: i64,
    /// Input from the provider's cache, nano-dollars.
    cached_input_nano_usd_per_mtok: i64,
    /// Output, nano-dollars.
    output_nano_usd_per_mtok: i64,
}

impl From<LongContext> for LongContextView {
    fn from(long: LongContext) -> Self {
        let LongContext { above_tokens, input_nano_per_mtok, cached_input_nano_per_mtok, output_nano_per_mtok } = long;
        Self {
            above_tokens,
            input_nano_usd_per_mtok: input_nano_per_mtok,
            cached_input_nano_usd_per_mtok: cached_input_nano_per_mtok,
            output_nano_usd_per_mtok: output_nano_per_mtok,
        }
    }
}

impl From<PriceRow> for PriceView {
    fn from(row: PriceRow) -> Self {
        let PriceRow {
            provider,
            model,
            tier,
            version,
            input_nano_per_mtok: input,
            cached_input_nano_per_mtok: cached,
            output_nano_per_mtok: output,
            holds_maximum,
            long_context,
            source,
            valid_from,
        } = row;
        Self {
            provider,
            model,
            tier,
            version,
            input_nano_usd_per_mtok: input,
            input_usd_per_mtok: input,
            cached_input_nano_usd_per_mtok: cached,
            cached_input_usd_per_mtok: cached,
            output_nano_usd_per_mtok: output,
            output_usd_per_mtok: output,
            holds_maximum,
            long_context: long_context.map(LongContextView::from),
            source,
            valid_from,
        }
    }
}

/// Every version of every price, a model's newest first. All on one page.
#[utoipa::path(
    get, path = "/billing/prices", tag = "billing", operation_id = "listPrices",
    responses((status = 200, description = "The price book", body = PageBody<PriceView>)),
)]
pub(crate) async fn list<H: Host>(call: Call<H>) -> Result<Json<PageBody<PriceView>>, Failure> {
    let operator = call.operator(Permission::BillingRead).await?;
    Ok(Json(PageBody::from_page(operator.list_prices().await?, PriceView::from)))
}

/// A model's price from a moment on. Amounts are dollars per million tokens, at most 9 decimals.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewPrice)]
pub(crate) struct PriceBody {
    /// The provider.
    #[serde(deserialize_with = "word")]
    provider: Provider,
    /// The model; one that ends in `*` is a prefix, `*` alone any model of the provider.
    #[schema(value_type = String, min_length = 1, max_length = 200, pattern = r"^([!-)+-~]+\*?|\*)$")]
    model: ModelName,
    /// What it is the price of: `standard` unless told.
    #[serde(default, deserialize_with = "word")]
    #[schema(default = "standard")]
    tier: Tier,
    /// Input.
    #[schema(value_type = f64, minimum = 0, maximum = 9_007_199)]
    input_usd_per_mtok: Amount,
    /// Input from the provider's cache.
    #[schema(value_type = f64, minimum = 0, maximum = 9_007_199)]
    cached_input_usd_per_mtok: Amount,
    /// Output.
    #[schema(value_type = f64, minimum = 0, maximum = 9_007_199)]
    output_usd_per_mtok: Amount,
    /// The model bills tokens that it does not stream (reasoning): a turn holds its whole maximum.
    #[serde(default)]
    holds_maximum: bool,
    /// The prices of a call whose prompt is longer than so many tokens, of all its tokens, where they are others. None is lower than the price that it stands in for.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    long_context: Option<LongContextBody>,
    /// Where the price is from: an address, say.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    source: Option<Text>,
    /// From when it is used; now unless told.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    valid_from: Option<Timestamp>,
}

/// Dearer prices of long prompts. Amounts are dollars per million tokens, at most 9 decimals.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewLongContextPrice)]
pub(crate) struct LongContextBody {
    /// The longest prompt that the other prices are for.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    above_tokens: u64,
    /// Input.
    #[schema(value_type = f64, minimum = 0, maximum = 9_007_199)]
    input_usd_per_mtok: Amount,
    /// Input from the provider's cache.
    #[schema(value_type = f64, minimum = 0, maximum = 9_007_199)]
    cached_input_usd_per_mtok: Amount,
    /// Output.
    #[schema(value_type = f64, minimum = 0, maximum = 9_007_199)]
    output_usd_per_mtok: Amount,
}

impl LongContextBody {
    /// With what each price stands in for.
    fn checked(self, usual: [Amount; 3]) -> Result<LongContext, Problem> {
        let Self { above_tokens, input_usd_per_mtok, cached_input_usd_per_mtok, output_usd_per_mtok } = self;
        let long = [input_usd_per_mtok, cached_input_usd_per_mtok, output_usd_per_mtok];
        if i64::try_from(above_tokens).is_err() {
            return Err(Problem::field("/longContext/aboveTokens", "a number of tokens"));
        }
        if let Some((_, name)) = long.iter().zip(usual).zip(["input", "cachedInput", "output"]).find(|((long, usual), _)| long.0 < usual.0)
        {
            return Err(Problem::field(format!("/longContext/{name}UsdPerMtok"), "not lower than the price of shorter prompts"));
        }
        let [input, cached, output] = long.map(|amount| amount.0.0);
        Ok(LongContext { above_tokens, input_nano_per_mtok: input, cached_input_nano_per_mtok: cached, output_nano_per_mtok: output })
    }
}

/// Who runs the model, or whose protocol its server speaks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Provider {
    /// `OpenAI`'s chat completions, and whoever speaks them.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// The deterministic model that needs no network.
    Local,
}

impl Provider {
    fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Local => "local",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct ModelName(String);

impl TryFrom<String> for ModelName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let stem = name.strip_suffix('*').unwrap_or(&name);
        let fits = (1..=200).contains(&name.len()) && stem.bytes().all(|b| b.is_ascii_graphic() && b != b'*');
        if fits { Ok(Self(name)) } else { Err("a model's name is 1 to 200 visible ASCII characters; a '*' may stand at its end only") }
    }
}

/// Dollars, not negative.
#[derive(Debug, Clone, Copy)]
struct Amount(NanoUsd);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let UsdAmount(amount) = UsdAmount::deserialize(deserializer)?;
        if amount < NanoUsd::ZERO { Err(serde::de::Error::custom("a price is not negative")) } else { Ok(Self(amount)) }
    }
}

/// The years 1 to 9999: other times have no form that every side reads.
const YEARS: std::ops::RangeInclusive<Timestamp> = Timestamp(-62_135_596_800_000)..=Timestamp(253_402_300_799_999);

/// What was stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = StoredPrice)]
pub(crate) struct StoredView {
    /// The price's version.
    version: i32,
}

/// Sets a model's price. The same as its newest version keeps that version; earlier versions stay, for the turns that they priced.
#[utoipa::path(
    put, path = "/billing/prices", tag = "billing", operation_id = "putPrice", request_body = PriceBody,
    responses((status = 200, description = "Stored", body = StoredView)),
)]
pub(crate) async fn put<H: Host>(call: Call<H>, request: Unread) -> Result<Json<StoredView>, Failure> {
    let operator = call.operator(Permission::WorkspaceList).await?;
    let PriceBody {
        provider,
        model,
        tier,
        input_usd_per_mtok,
        cached_input_usd_per_mtok,
        output_usd_per_mtok,
        holds_maximum,
        long_context,
        source,
        valid_from,
    } = request.json().await?;
    let usual = [input_usd_per_mtok, cached_input_usd_per_mtok, output_usd_per_mtok];
    let long_context = long_context.map(|long| long.checked(usual)).transpose()?;
    let now = call.host.now();
    if valid_from.is_some_and(|from| !YEARS.contains(&from)) {
        return Err(Problem::field("/validFrom", "a time of the years 1 to 9999 in UTC").into());
    }
    let price = NewPrice {
        provider: provider.as_str().to_owned(),
        model: model.0,
        tier,
        input_nano_per_mtok: input_usd_per_mtok.0,
        cached_input_nano_per_mtok: cached_input_usd_per_mtok.0,
        output_nano_per_mtok: output_usd_per_mtok.0,
        holds_maximum,
        long_context,
        source: source.map(Text::into_string),
        valid_from: valid_from.unwrap_or(now),
    };
    if valid_from.is_none() {
        // "From now on" said twice is one price: else every repetition would be a version.
        let rows = operator.list_prices().await?.data;
        let newest = rows.into_iter().find(|row| row.provider == price.provider && row.model == price.model && row.tier == price.tier);
        if let Some(row) = newest.filter(|row| says(row, &price)) {
            return Ok(Json(StoredView { version: row.version }));
        }
    }
    Ok(Json(StoredView { version: operator.put_price(&price).await? }))
}

/// Whether a row of the price book already says what a price that begins now would.
fn says(row: &PriceRow, price: &NewPrice) -> bool {
    let NewPrice {
        provider,
        model,
        tier,
        input_nano_per_mtok,
        cached_input_nano_per_mtok,
        output_nano_per_mtok,
        holds_maximum,
        long_context,
        source,
        valid_from: now,
    } = price;
    row.provider == *provider
        && row.model == *model
        && row.tier == *tier
        && row.input_nano_per_mtok == *input_nano_per_mtok
        && row.cached_input_nano_per_mtok == *cached_input_nano_per_mtok
        && row.output_nano_per_mtok == *output_nano_per_mtok
        && row.holds_maximum == *holds_maximum
        && row.long_context == *long_context
        && row.source == *source
        && row.valid_from <= *now
}
