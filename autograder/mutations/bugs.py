"""Bugs as students make them, each an edit of one solution region of the master: what the hidden checks are tried on.

    files = mutated(root, BY_NAME["rmsnorm: eps is left out"])      # {"llama.py": the whole file with that one bug}

They were written without looking at `misconceptions/`, and so they tell how many of the bugs that nobody thought of
are caught, and how many are named. A simulated class is made of them as well (`apply_all`). Snippets are written as if
the region began in the first column.
"""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autograder.handout.regions import read_regions
from errors import MinLlamaError
from submission_rules import FILES

WHOLE = ""  # as `old`: the whole region is replaced


@dataclass(frozen=True)
class Mutation:
    """One bug: within a region, `old`, which stands there exactly once, becomes `new`."""

    name: str
    region: str
    what: str  # one phrase, as a TA would put it to a student
    old: str
    new: str


def mutated(root: Path, mutation: Mutation) -> dict[str, str]:
    """Return the text of the file that the bug changes, by its name, read from the master in `root`.

    Raises MinLlamaError if the master's markers are broken, or `old` does not stand in the region exactly once.
    """
    return apply_all(root, (mutation,))


def apply_all(root: Path, mutations: Iterable[Mutation]) -> dict[str, str]:
    """Return the text of every file that the bugs change, by its name; each region may have one of them.

    Raises MinLlamaError as `mutated` does, and for two bugs in one region.
    """
    files: dict[str, str] = {}
    taken: dict[str, str] = {}
    for mutation in mutations:
        if other := taken.get(mutation.region):
            raise MinLlamaError(
                f"'{other}' and '{mutation.name}' both change the region {mutation.region}: choose one of them"
            )
        taken[mutation.region] = mutation.name
        file = FILES[mutation.region]
        text = files[file] if file in files else (root / file).read_text(encoding="utf-8")
        files[file] = _edit(text, mutation, file)
    return files


def _edit(text: str, mutation: Mutation, file: str) -> str:
    """Return a file's text with one bug in it."""
    region = next(region for region in read_regions(text, file) if region.name == mutation.region)
    lines = text.splitlines(keepends=True)
    code = textwrap.dedent("".join(lines[region.first : region.last - 1]))
    if mutation.old == WHOLE:
        code = mutation.new
    elif (times := code.count(mutation.old)) == 1:
        code = code.replace(mutation.old, mutation.new)
    else:
        raise MinLlamaError(
            f"{file}: the mutation '{mutation.name}' looks for `{mutation.old}` in the region {mutation.region}, "
            f"where it stands {times} times instead of once: adapt the mutation to the master"
        )
    lines[region.first : region.last - 1] = [textwrap.indent(code.strip("\n"), region.indent) + "\n"]
    return "".join(lines)


RMSNORM = (
    Mutation("eps is left out", "rmsnorm", "RMSNorm adds no eps", " + self.eps", ""),
    Mutation(
        "eps outside the root",
        "rmsnorm",
        "RMSNorm adds eps after the square root instead of under it",
        "torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps)",
        "(1.0 / (x.pow(2).mean(dim=-1, keepdim=True).sqrt() + self.eps))",
    ),
    Mutation(
        "eps written as a number",
        "rmsnorm",
        "RMSNorm uses 1e-6 whatever eps it was made with",
        "self.eps",
        "1e-6",
    ),
    Mutation(
        "mean square without root",
        "rmsnorm",
        "RMSNorm divides by the mean square and forgets the root",
        "x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps)",
        "x / (x.pow(2).mean(dim=-1, keepdim=True) + self.eps)",
    ),
    Mutation("sum instead of mean", "rmsnorm", "RMSNorm sums the squares instead of averaging them", ".mean(", ".sum("),
    Mutation(
        "mean over everything",
        "rmsnorm",
        "RMSNorm takes one mean over the whole tensor",
        "mean(dim=-1, keepdim=True)",
        "mean()",
    ),
    Mutation("no keepdim", "rmsnorm", "RMSNorm loses the last dimension of the mean", ", keepdim=True", ""),
    Mutation(
        "mean subtracted",
        "rmsnorm",
        "RMSNorm centres its input first, as LayerNorm does",
        WHOLE,
        """
x = x - x.mean(dim=-1, keepdim=True)
return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps)
""",
    ),
    Mutation(
        "weight applied twice",
        "rmsnorm",
        "RMSNorm weights in _norm what forward weights again",
        "+ self.eps)",
        "+ self.eps) * self.weight",
    ),
)

ROPE = (
    Mutation(
        "halves behind each other",
        "rope",
        "RoPE puts all first elements of the pairs in front of all second ones",
        WHOLE,
        """
freqs = 1.0 / (theta ** (torch.arange(0, head_dim, 2, device=query.device).float() / head_dim))
freqs = torch.outer(torch.arange(seqlen, device=query.device).float(), freqs)
cos = reshape_for_broadcast(freqs.cos(), query_real)
sin = reshape_for_broadcast(freqs.sin(), query_real)
query_out = torch.cat((query_real * cos - query_imag * sin, query_real * sin + query_imag * cos), dim=-1)
key_out = torch.cat((key_real * cos - key_imag * sin, key_real * sin + key_imag * cos), dim=-1)
""",
    ),
    Mutation(
        "turned the other way",
        "rope",
        "RoPE turns by the negative angle",
        "sin = reshape_for_broadcast(angle.sin(), query_real)",
        "sin = reshape_for_broadcast(-angle.sin(), query_real)",
    ),
    Mutation(
        "one sign wrong",
        "rope",
        "RoPE subtracts where the second element of a query's pair needs a sum",
        "query_real * sin + query_imag * cos",
        "query_real * sin - query_imag * cos",
    ),
    Mutation(
        "positions from one",
        "rope",
        "RoPE counts positions from 1",
        "torch.arange(seqlen, dtype=torch.float32, device=query.device)",
        "torch.arange(1, seqlen + 1, dtype=torch.float32, device=query.device)",
    ),
    Mutation(
        "i instead of 2i",
        "rope",
        "RoPE's exponent is i / head_dim instead of 2i / head_dim",
        "torch.arange(0, head_dim, 2, dtype=torch.float32, device=query.device)",
        "torch.arange(head_dim // 2, dtype=torch.float32, device=query.device)",
    ),
    Mutation(
        "exponent without minus",
        "rope",
        "RoPE's angles grow with theta, since the exponent has no minus",
        "-pair / head_dim",
        "pair / head_dim",
    ),
    Mutation(
        "theta written as a number", "rope", "RoPE uses 10000 whatever theta it is given", "theta **", "10000.0 **"
    ),
    Mutation(
        "key left alone",
        "rope",
        "RoPE rotates the queries and hands the keys back as they were",
        "(key_real * cos - key_imag * sin, key_real * sin + key_imag * cos)",
        "(key_real, key_imag)",
    ),
    Mutation(
        "real part overwritten",
        "rope",
        "RoPE computes the second element of a pair from the already rotated first one",
        WHOLE,
        """
pair = torch.arange(0, head_dim, 2, dtype=torch.float32, device=query.device)
position = torch.arange(seqlen, dtype=torch.float32, device=query.device)
angle = torch.outer(position, theta ** (-pair / head_dim))
cos = reshape_for_broadcast(angle.cos(), query_real)
sin = reshape_for_broadcast(angle.sin(), query_real)
query_real = query_real * cos - query_imag * sin
query_imag = query_real * sin + query_imag * cos
key_real = key_real * cos - key_imag * sin
key_imag = key_real * sin + key_imag * cos
query_out = torch.stack((query_real, query_imag), dim=-1).flatten(-2)
key_out = torch.stack((key_real, key_imag), dim=-1).flatten(-2)
""",
    ),
    Mutation(
        "pairs not joined",
        "rope",
        "RoPE returns pairs in a dimension of their own",
        "query_real * sin + query_imag * cos), -1).flatten(-2)",
        "query_real * sin + query_imag * cos), -1)",
    ),
    Mutation(
        "angles for the whole context",
        "rope",
        "RoPE makes angles for max_seq_len positions and does not cut them to the input's",
        "torch.arange(seqlen, dtype",
        "torch.arange(max_seq_len, dtype",
    ),
)

ATTENTION = (
    Mutation("not scaled", "attention", "attention does not scale its scores", " / math.sqrt(self.head_dim)", ""),
    Mutation(
        "scaled without root",
        "attention",
        "attention divides by head_dim instead of its root",
        "math.sqrt(self.head_dim)",
        "self.head_dim",
    ),
    Mutation(
        "scaled by the whole width",
        "attention",
        "attention divides by the root of dim instead of head_dim",
        "math.sqrt(self.head_dim)",
        "math.sqrt(self.n_local_heads * self.head_dim)",
    ),
    Mutation("key not transposed", "attention", "attention forgets to transpose the keys", ".transpose(-2, -1)", ""),
    Mutation(
        "softmax over the queries", "attention", "attention's columns sum to one, not its rows", "dim=-1", "dim=-2"
    ),
    Mutation("own token masked", "attention", "the mask hides a token from itself", "diagonal=1", "diagonal=0"),
    Mutation("next token seen", "attention", "the mask lets a token see the next one", "diagonal=1", "diagonal=2"),
    Mutation("no mask", "attention", "attention has no causal mask", "if self.causal:", "if False:"),
    Mutation(
        "mask of zeros",
        "attention",
        "masked scores become 0 before the softmax, which still gives them weight",
        'float("-inf")',
        "0.0",
    ),
    Mutation(
        "mask too small to count",
        "attention",
        "masked scores become -1e-9, a slip for -1e9",
        'float("-inf")',
        "-1e-9",
    ),
    Mutation(
        "mask after the softmax",
        "attention",
        "attention zeroes the future after the softmax, and the rest no longer sums to one",
        WHOLE,
        """
seqlen = query.shape[2]
scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(self.head_dim)
if self.attention_bias is not None:
    scores = scores + self.attention_bias
weights = F.softmax(scores, dim=-1)
if self.causal:
    weights = torch.tril(weights)
weights = self.attn_dropout(weights)
return torch.matmul(weights, value)
""",
    ),
    Mutation(
        "bias ignored",
        "attention",
        "attention_bias is not added",
        """if self.attention_bias is not None:
    scores = scores + self.attention_bias
""",
        "",
    ),
    Mutation(
        "bias before the scaling",
        "attention",
        "attention_bias is scaled with the scores",
        WHOLE,
        """
scores = query @ key.transpose(-2, -1)
if self.attention_bias is not None:
    scores = scores + self.attention_bias
scores = scores / math.sqrt(self.head_dim)
if self.causal:
    seqlen = scores.shape[-1]
    mask = torch.tril(torch.ones(seqlen, seqlen, device=scores.device))
    scores = scores.masked_fill(mask == 0, float("-inf"))
weights = self.attn_dropout(F.softmax(scores, dim=-1))
return weights @ value
""",
    ),
    Mutation(
        "no attention dropout",
        "attention",
        "attention never calls attn_dropout",
        "self.attn_dropout(F.softmax(scores, dim=-1))",
        "F.softmax(scores, dim=-1)",
    ),
    Mutation(
        "dropout on the scores",
        "attention",
        "attention drops scores before the softmax",
        "self.attn_dropout(F.softmax(scores, dim=-1))",
        "F.softmax(self.attn_dropout(scores), dim=-1)",
    ),
    Mutation(
        "dropout in evaluation too",
        "attention",
        "attention drops weights in evaluation as well",
        "self.attn_dropout(F.softmax(scores, dim=-1))",
        "F.dropout(F.softmax(scores, dim=-1), p=self.dropout)",
    ),
)

GQA = (
    Mutation(
        "result thrown away",
        "gqa",
        "the repeated keys and values are computed and not kept",
        WHOLE,
        """
if self.n_rep > 1:
    key.repeat_interleave(self.n_rep, dim=2)
    value.repeat_interleave(self.n_rep, dim=2)
""",
    ),
    Mutation(
        "value not repeated",
        "gqa",
        "only the keys are repeated",
        "value = torch.repeat_interleave(value, repeats=self.n_rep, dim=2)",
        "",
    ),
    Mutation(
        "heads tiled",
        "gqa",
        "the whole row of key and value heads is repeated, instead of each head next to itself",
        WHOLE,
        """
key = key.repeat(1, 1, self.n_rep, 1)
value = value.repeat(1, 1, self.n_rep, 1)
""",
    ),
    Mutation(
        "values tiled",
        "gqa",
        "keys are repeated head by head, values as a whole row",
        "torch.repeat_interleave(value, repeats=self.n_rep, dim=2)",
        "torch.cat([value] * self.n_rep, dim=2)",
    ),
    Mutation(
        "tokens repeated",
        "gqa",
        "tokens are repeated instead of heads",
        WHOLE,
        """
key = torch.repeat_interleave(key, self.n_rep, dim=1)
value = torch.repeat_interleave(value, self.n_rep, dim=1)
""",
    ),
    Mutation(
        "value made from key",
        "gqa",
        "the values are a copy of the keys",
        "torch.repeat_interleave(value, ",
        "torch.repeat_interleave(key, ",
    ),
    Mutation(
        "expanded on the wrong side",
        "gqa",
        "the new dimension stands before the heads, so that head h reads h % n_kv_heads",
        WHOLE,
        """
n_kv = self.n_local_kv_heads
key = key[:, :, None, :, :].expand(bs, seqlen, self.n_rep, n_kv, self.head_dim)
value = value[:, :, None, :, :].expand(bs, seqlen, self.n_rep, n_kv, self.head_dim)
key = key.reshape(bs, seqlen, self.n_local_heads, self.head_dim)
value = value.reshape(bs, seqlen, self.n_local_heads, self.head_dim)
""",
    ),
    Mutation(
        "reshaped instead of repeated",
        "gqa",
        "keys and values are reshaped to n_heads heads, for which they have too few elements",
        WHOLE,
        """
if self.n_rep > 1:
    key = key.reshape(bs, seqlen, self.n_local_heads, self.head_dim)
    value = value.reshape(bs, seqlen, self.n_local_heads, self.head_dim)
""",
    ),
)

LAYER = (
    Mutation(
        "norms behind",
        "layer",
        "the layer normalises behind attention and feed-forward, as the first Transformer did",
        WHOLE,
        """
x = self.attention_norm(x + self.attention(x))
return self.ffn_norm(x + self.feed_forward(x))
""",
    ),
    Mutation(
        "no residual around attention", "layer", "the layer forgets to add its input to attention", "h = x + ", "h = "
    ),
    Mutation(
        "no residual around feed-forward", "layer", "the layer returns the feed-forward alone", "return h + ", "return "
    ),
    Mutation(
        "input added twice",
        "layer",
        "the second sum takes the layer's input instead of the first sum",
        "return h + ",
        "return x + ",
    ),
    Mutation(
        "feed-forward reads the input",
        "layer",
        "the feed-forward reads the layer's input, beside attention and not after it",
        "self.ffn_norm(h)",
        "self.ffn_norm(x)",
    ),
    Mutation("one norm for both", "layer", "the layer never uses ffn_norm", "self.ffn_norm", "self.attention_norm"),
    Mutation(
        "norms exchanged",
        "layer",
        "the layer uses each norm in front of the other part",
        WHOLE,
        """
h = x + self.attention(self.ffn_norm(x))
return h + self.feed_forward(self.attention_norm(h))
""",
    ),
    Mutation(
        "residual after the norm",
        "layer",
        "the layer adds the normalised input instead of the input",
        WHOLE,
        """
x = self.attention_norm(x)
x = x + self.attention(x)
x = self.ffn_norm(x)
return x + self.feed_forward(x)
""",
    ),
    Mutation(
        "input changed in place",
        "layer",
        "the layer writes into the tensor that it was given, which backward still needs",
        WHOLE,
        """
x += self.attention(self.attention_norm(x))
x += self.feed_forward(self.ffn_norm(x))
return x
""",
    ),
    Mutation(
        "nothing returned", "layer", "the layer computes its output and returns nothing", "return h + ", "output = h + "
    ),
)

GENERATE = (
    Mutation("temperature ignored", "generate", "sampling ignores the temperature", "logits / temperature", "logits"),
    Mutation(
        "temperature multiplied",
        "generate",
        "sampling multiplies the logits by the temperature",
        "logits / temperature",
        "logits * temperature",
    ),
    Mutation(
        "temperature after the softmax",
        "generate",
        "sampling divides the probabilities by the temperature, which changes nothing",
        "F.softmax(logits / temperature, dim=-1)",
        "F.softmax(logits, dim=-1) / temperature",
    ),
    Mutation(
        "always the likeliest",
        "generate",
        "sampling takes the likeliest token at every temperature",
        "torch.multinomial(probabilities, num_samples=1)",
        "torch.argmax(probabilities, dim=-1, keepdim=True)",
    ),
    Mutation(
        "greedy divides by zero",
        "generate",
        "greedy generation divides by a temperature of zero",
        WHOLE,
        """
probabilities = F.softmax(logits / temperature, dim=-1)
idx_next = torch.multinomial(probabilities, num_samples=1)
""",
    ),
    Mutation(
        "greedy draws",
        "generate",
        "at temperature zero a token is drawn at temperature one",
        "logits.argmax(dim=-1, keepdim=True)",
        "torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)",
    ),
    Mutation(
        "argmax over the rows",
        "generate",
        "greedy generation takes the argmax over the batch",
        "argmax(dim=-1, keepdim=True)",
        "argmax(dim=0, keepdim=True)",
    ),
    Mutation(
        "token without its dimension",
        "generate",
        "the greedy token has shape (bs,) and cannot be appended",
        "argmax(dim=-1, keepdim=True)",
        "argmax(dim=-1)",
    ),
    Mutation(
        "logit instead of token",
        "generate",
        "greedy generation appends the largest logit instead of its index",
        "logits.argmax(dim=-1, keepdim=True)",
        "torch.max(logits, dim=-1, keepdim=True)[0]",
    ),
    Mutation(
        "softmax over the batch",
        "generate",
        "sampling takes the softmax over the rows of the batch",
        "F.softmax(logits / temperature, dim=-1)",
        "F.softmax(logits / temperature, dim=0)",
    ),
    Mutation(
        "drawn from log-probabilities",
        "generate",
        "sampling hands log-probabilities to multinomial",
        "F.softmax(logits / temperature, dim=-1)",
        "F.log_softmax(logits / temperature, dim=-1)",
    ),
    Mutation(
        "seeded at every token",
        "generate",
        "sampling sets the seed anew for every token, so that all draws are the same",
        "idx_next = torch.multinomial",
        "torch.manual_seed(1337)\n    idx_next = torch.multinomial",
    ),
)

ADAMW = (
    Mutation("step not counted", "adamw", "AdamW never counts its steps", 'state["step"] += 1\n', ""),
    Mutation(
        "step counted twice",
        "adamw",
        "AdamW's step counter starts at 1 and is increased before its first use",
        'state["step"] = 0',
        'state["step"] = 1',
    ),
    Mutation(
        "steps of all parameters",
        "adamw",
        "AdamW counts one step a parameter, in a counter that all of them share",
        'state["step"] += 1\nexp_avg, exp_avg_sq, t = state["exp_avg"], state["exp_avg_sq"], state["step"]',
        'group["step"] = group.get("step", 0) + 1\n'
        'exp_avg, exp_avg_sq, t = state["exp_avg"], state["exp_avg_sq"], group["step"]',
    ),
    Mutation(
        "state made anew",
        "adamw",
        "AdamW starts its averages again at every step",
        """if not state:
    state["step"] = 0
    state["exp_avg"] = torch.zeros_like(p)
    state["exp_avg_sq"] = torch.zeros_like(p)
""",
        """state["step"] = state.get("step", 0)
state["exp_avg"] = torch.zeros_like(p)
state["exp_avg_sq"] = torch.zeros_like(p)
""",
    ),
    Mutation(
        "averages not kept",
        "adamw",
        "AdamW computes new averages and does not put them back into the state",
        """exp_avg.mul_(beta1).add_(p.grad, alpha=1 - beta1)
exp_avg_sq.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
""",
        """exp_avg = beta1 * exp_avg + (1 - beta1) * p.grad
exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * p.grad**2
""",
    ),
    Mutation(
        "averages shared",
        "adamw",
        "AdamW keeps one pair of averages for all parameters",
        "state = self.state[p]",
        "state = self.state[self.param_groups[0]['params'][0]]",
    ),
    Mutation(
        "gradient not averaged",
        "adamw",
        "AdamW adds the gradient in full, without the factor 1 - beta1",
        "add_(p.grad, alpha=1 - beta1)",
        "add_(p.grad)",
    ),
    Mutation(
        "betas exchanged",
        "adamw",
        "AdamW uses beta2 for the first average and beta1 for the second",
        "(beta1, beta2), lr",
        "(beta2, beta1), lr",
    ),
    Mutation("no bias correction", "adamw", "AdamW never corrects the bias", 'if group["correct_bias"]:', "if False:"),
    Mutation(
        "bias always corrected",
        "adamw",
        "AdamW corrects the bias although correct_bias is off",
        'if group["correct_bias"]:',
        "if True:",
    ),
    Mutation(
        "bias correction without root",
        "adamw",
        "AdamW forgets the root over 1 - beta2^t",
        "math.sqrt(1 - beta2**t)",
        "(1 - beta2**t)",
    ),
    Mutation(
        "only the first bias corrected",
        "adamw",
        "AdamW corrects the first average and not the second",
        "lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)",
        "lr / (1 - beta1**t)",
    ),
    Mutation(
        "eps after the correction",
        "adamw",
        "AdamW adds eps to the corrected root, as in the textbook form and not in the efficient one",
        WHOLE,
        """
state = self.state[p]
if len(state) == 0:
    state["t"] = 0
    state["m"] = torch.zeros_like(p.data)
    state["v"] = torch.zeros_like(p.data)
state["t"] += 1
beta1, beta2 = group["betas"]
state["m"] = beta1 * state["m"] + (1 - beta1) * p.grad
state["v"] = beta2 * state["v"] + (1 - beta2) * p.grad * p.grad
m_hat, v_hat = state["m"], state["v"]
if group["correct_bias"]:
    m_hat = m_hat / (1 - beta1 ** state["t"])
    v_hat = v_hat / (1 - beta2 ** state["t"])
p.data -= group["lr"] * m_hat / (torch.sqrt(v_hat) + group["eps"])
p.data -= group["lr"] * group["weight_decay"] * p.data
""",
    ),
    Mutation(
        "eps under the root",
        "adamw",
        "AdamW adds eps under the root",
        'exp_avg_sq.sqrt().add_(group["eps"])',
        'exp_avg_sq.add(group["eps"]).sqrt()',
    ),
    Mutation(
        "second root forgotten",
        "adamw",
        "AdamW divides by v instead of its root",
        "exp_avg_sq.sqrt()",
        "(exp_avg_sq + 0)",
    ),
    Mutation("uphill", "adamw", "AdamW adds the step instead of subtracting it", "value=-step_size", "value=step_size"),
    Mutation("no decay", "adamw", "AdamW has no weight decay", 'p.mul_(1 - lr * group["weight_decay"])', ""),
    Mutation(
        "decay before the update",
        "adamw",
        "AdamW decays the weights before the update",
        """p.addcdiv_(exp_avg, exp_avg_sq.sqrt().add_(group["eps"]), value=-step_size)
p.mul_(1 - lr * group["weight_decay"])
""",
        """p.mul_(1 - lr * group["weight_decay"])
p.addcdiv_(exp_avg, exp_avg_sq.sqrt().add_(group["eps"]), value=-step_size)
""",
    ),
    Mutation(
        "decay in the gradient",
        "adamw",
        "AdamW adds the decay to the gradient, as Adam with an L2 penalty does",
        WHOLE,
        """
grad = p.grad + group["weight_decay"] * p
state = self.state[p]
if "step" not in state:
    state["step"] = 0
    state["exp_avg"] = torch.zeros_like(p)
    state["exp_avg_sq"] = torch.zeros_like(p)
state["step"] += 1
beta1, beta2 = group["betas"]
state["exp_avg"].mul_(beta1).add_(grad, alpha=1 - beta1)
state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
alpha = group["lr"]
if group["correct_bias"]:
    alpha = alpha * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
p.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt() + group["eps"], value=-alpha)
""",
    ),
    Mutation(
        "decay by the corrected rate",
        "adamw",
        "AdamW scales the decay by the bias-corrected step size",
        "p.mul_(1 - lr * ",
        "p.mul_(1 - step_size * ",
    ),
    Mutation(
        "decay without the rate",
        "adamw",
        "AdamW does not scale the decay by the learning rate",
        '1 - lr * group["weight_decay"]',
        '1 - group["weight_decay"]',
    ),
    Mutation(
        "first group for all",
        "adamw",
        "AdamW reads the hyperparameters of the first group for every parameter",
        '(beta1, beta2), lr = group["betas"], group["lr"]',
        'group = self.param_groups[0]\n(beta1, beta2), lr = group["betas"], group["lr"]',
    ),
    Mutation(
        "parameter not updated",
        "adamw",
        "AdamW assigns the result to the name p, which leaves the parameter as it was",
        """p.addcdiv_(exp_avg, exp_avg_sq.sqrt().add_(group["eps"]), value=-step_size)
p.mul_(1 - lr * group["weight_decay"])
""",
        """p = p - step_size * exp_avg / (exp_avg_sq.sqrt() + group["eps"])
p = p - lr * group["weight_decay"] * p
""",
    ),
)

EMBEDDING_HEAD = (
    Mutation(
        "last column",
        "embedding_head",
        "the classifier reads the last column, which is padding in a short row",
        "hidden[torch.arange(len(input_ids), device=input_ids.device), last]",
        "hidden[:, -1, :]",
    ),
    Mutation(
        "first token",
        "embedding_head",
        "the classifier reads the first token, as BERT's does",
        "hidden[torch.arange(len(input_ids), device=input_ids.device), last]",
        "hidden[:, 0, :]",
    ),
    Mutation(
        "mean of the row",
        "embedding_head",
        "the classifier averages over all tokens, padding included",
        "hidden[torch.arange(len(input_ids), device=input_ids.device), last]",
        "hidden.mean(dim=1)",
    ),
    Mutation(
        "every row for every row",
        "embedding_head",
        "indexing with [:, last] takes the last position of every row from each row",
        "hidden[torch.arange(len(input_ids), device=input_ids.device), last]",
        "hidden[:, last]",
    ),
    Mutation(
        "padding taken for zero",
        "embedding_head",
        "the classifier looks for padding with the id 0",
        "self.llama.config.pad_id",
        "0",
    ),
    Mutation(
        "logits for hidden states",
        "embedding_head",
        "the classifier takes the first of the Llama's two results, the logits",
        "_, hidden = self.llama(input_ids)",
        "hidden, _ = self.llama(input_ids)",
    ),
    Mutation(
        "no dropout", "embedding_head", "the classifier never calls its dropout", "self.dropout(sentence)", "sentence"
    ),
    Mutation(
        "dropout on the logits",
        "embedding_head",
        "the classifier drops logits instead of elements of the hidden state",
        "self.classifier_head(self.dropout(sentence))",
        "self.dropout(self.classifier_head(sentence))",
    ),
    Mutation(
        "dropout in evaluation too",
        "embedding_head",
        "the classifier drops elements in evaluation as well",
        "self.dropout(sentence)",
        "F.dropout(sentence, p=self.dropout.p)",
    ),
    Mutation(
        "softmax without log",
        "embedding_head",
        "the classifier returns probabilities instead of their logarithms",
        "F.log_softmax(",
        "F.softmax(",
    ),
    Mutation(
        "raw logits",
        "embedding_head",
        "the classifier returns its logits",
        "return F.log_softmax(logits, dim=-1)",
        "return logits",
    ),
    Mutation(
        "body without gradient",
        "embedding_head",
        "the classifier runs the Llama under no_grad, so that finetuning trains the head alone",
        "_, hidden = self.llama(input_ids)",
        "with torch.no_grad():\n    _, hidden = self.llama(input_ids)",
    ),
)

ZERO_SHOT_HEAD = (
    Mutation(
        "all tokens at one position",
        "zero_shot_head",
        "every token of a label is scored as if it were the next one",
        WHOLE,
        """
log_probs = self.next_token_log_probs(input_ids, [])[:, 0]
return torch.stack([log_probs[:, ids].sum(dim=1) for ids in self.label_name_ids], dim=1)
""",
    ),
    Mutation(
        "first token only",
        "zero_shot_head",
        "a label's score is that of its first token",
        WHOLE,
        """
log_probs = self.next_token_log_probs(input_ids, [])[:, 0]
first = [ids[0] for ids in self.label_name_ids]
return log_probs[:, first]
""",
    ),
    Mutation(
        "last token only",
        "zero_shot_head",
        "a label's score is that of its last token",
        "chosen.sum(dim=1)",
        "chosen[:, -1]",
    ),
    Mutation(
        "mean of the tokens",
        "zero_shot_head",
        "a label's score is the mean over its tokens instead of the sum",
        "chosen.sum(dim=1)",
        "chosen.mean(dim=1)",
    ),
    Mutation(
        "read one step late",
        "zero_shot_head",
        "a label's tokens are looked up one position after the one that predicts them",
        WHOLE,
        """
scores = []
for ids in self.label_name_ids:
    log_probs = self.next_token_log_probs(input_ids, ids)
    scores.append(sum(log_probs[:, i + 1, token] for i, token in enumerate(ids)))
return torch.stack(scores, dim=1)
""",
    ),
    Mutation(
        "labels sorted",
        "zero_shot_head",
        "the columns stand in the order of the labels' ids, not of the labels",
        "for ids in self.label_name_ids:\n",
        "for ids in sorted(self.label_name_ids):\n",
    ),
    Mutation(
        "labels as rows",
        "zero_shot_head",
        "the scores have shape (num_labels, bs)",
        "torch.stack(scores, dim=1)",
        "torch.stack(scores, dim=0)",
    ),
    Mutation(
        "label instead of scores",
        "zero_shot_head",
        "the classifier returns the best label instead of the scores",
        "return torch.stack(scores, dim=1)",
        "return torch.stack(scores, dim=1).argmax(dim=1)",
    ),
    Mutation(
        "renormalised over the labels",
        "zero_shot_head",
        "the scores are normalised over the labels, which is not asked for",
        "return torch.stack(scores, dim=1)",
        "return F.log_softmax(torch.stack(scores, dim=1), dim=-1)",
    ),
    Mutation(
        "misspelt name",
        "zero_shot_head",
        "a name is used that does not exist",
        "return torch.stack(scores",
        "return torch.stack(score",
    ),
)

MUTATIONS = (
    *RMSNORM,
    *ROPE,
    *ATTENTION,
    *GQA,
    *LAYER,
    *GENERATE,
    *ADAMW,
    *EMBEDDING_HEAD,
    *ZERO_SHOT_HEAD,
)
BY_NAME = {f"{mutation.region}: {mutation.name}": mutation for mutation in MUTATIONS}
