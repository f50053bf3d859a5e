"""Random checkpoints of every family for the parity scripts, and what transformers computes with them.

Used by forward_parity.py (many random shapes) and tests/golden/models.py (a few small ones whose values are kept). Values
have the names of `attune forward`: `dec.0.resid.out`, `enc.final`, `final`, `logits`, `loss`, `grad/NAME`.
"""
import os

import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification
from transformers import BertForTokenClassification, BertModel
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForQuestionAnswering, LlamaForSequenceClassification
from transformers import LlamaForTokenClassification, LlamaModel
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration, T5ForQuestionAnswering
from transformers import T5ForSequenceClassification, T5ForTokenClassification, T5Model
from transformers import ViTConfig, ViTForImageClassification, ViTModel


def draw(generator, high, count):
    return torch.randint(0, high, (count,), generator=generator).tolist()


def ids_tensor(ids):
    return torch.tensor([ids])


class Family:
    cases = {}             # case: (class, keywords of from_pretrained)
    layouts = ["plain", "sharded", "half"]

    def kind(self, case):
        return self.cases[case][0]

    def keywords(self, case):
        return self.cases[case][1]

    def extra_layouts(self, case):
        return []

    def rename(self, name, case, layout):
        """The name of a parameter in a file of this layout."""
        return name

    def lively(self, model, generator, gain):
        """Weights far from their start, so that a wrong epsilon, activation or order shows. Wide layers add many terms:
        weights shrink with the width so that every shape stays in a lively range."""
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            norm = "norm" in name.lower() and name.endswith("weight")
            value.data = noise * self.deviation(name, value, gain, model.config) + (1 if norm else 0)
        model.tie_weights()

    def deviation(self, name, value, gain, config):
        if value.dim() == 1:
            return 0.3
        if "embeddings" in name or "embed_tokens" in name or "shared" in name or "relative_attention_bias" in name:
            return 0.4
        return gain / value.shape[-1] ** 0.5

    def after_lively(self, model, case, rng, generator):
        pass

    def save(self, model, folder, case, layout):
        if layout == "half":
            model = model.half()
        model.save_pretrained(folder, max_shard_size="15KB" if layout == "sharded" else "1GB")
        path = os.path.join(folder, "model.safetensors")
        if os.path.exists(path) and layout not in ("plain", "half"):
            self.rewrite(path, case, layout)

    def rewrite(self, path, case, layout):
        tensors = {self.rename(name, case, layout): value for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})

    def load(self, folder, case, dtype=torch.float64):
        model, report = self.kind(case).from_pretrained(folder, attn_implementation="eager", dtype=dtype,
                                                        output_loading_info=True, **self.keywords(case))
        if report["missing_keys"] or report["unexpected_keys"]:
            raise SystemExit(f"the generated checkpoint {folder} is faulty: {report}")
        return model.to(dtype).eval()

    def points(self, model):
        """Modules whose results are compared, by our name."""
        raise NotImplementedError

    def reset(self, model):
        """Forgets what earlier inputs left behind."""

    def logits(self, output, case):
        if hasattr(output, "start_logits"):
            return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
        return output.logits[0] if hasattr(output, "logits") else None

    def reference(self, model, case, layout, arguments, labels):
        """Values and gradients of one input."""
        found, hooks = {}, []

        def keep(name):
            def hook(_module, _inputs, result):
                found[name] = (result[0] if isinstance(result, tuple) else result)[0].detach()
            return hook

        for name, module in self.points(model).items():
            hooks.append(module.register_forward_hook(keep(name)))
        model.zero_grad(set_to_none=True)
        self.reset(model)
        output = model(**arguments, **labels)
        for hook in hooks:
            hook.remove()
        logits = self.logits(output, case)
        if logits is not None:
            found["logits"] = logits.detach()
        grads = {}
        if labels:
            output.loss.backward()
            found["loss"] = output.loss.detach()
            for name, value in model.named_parameters():
                if value.grad is not None:
                    grads[self.rename(self.file_name(name), case, layout)] = value.grad.clone()
        return found, grads

    def file_name(self, name):
        """The name that save_pretrained gives a parameter."""
        return name

    def class_labels(self, case, config, generator):
        """Labels of a sequence head, as written in a line and as transformers takes them."""
        if case.startswith("regress"):
            return 0.75, torch.tensor([0.75], dtype=torch.float64)
        if case.startswith("multi"):
            values = draw(generator, 2, config.num_labels)
            return values, torch.tensor([values], dtype=torch.float64)
        value = draw(generator, config.num_labels, 1)[0]
        return value, torch.tensor([value])

    def head_fields(self, case, rng):
        if case.startswith("regress"):
            return dict(num_labels=1, problem_type="regression")
        if case.startswith("multi"):
            return dict(num_labels=4, problem_type="multi_label_classification")
        if case.startswith(("classify", "tag")):
            return dict(num_labels=rng.randint(2, 9))
        return {}


class Bert(Family):
    cases = {
        "base": (BertModel, {}), "base-no-pooler": (BertModel, {"add_pooling_layer": False}),
        "classify": (BertForSequenceClassification, {}), "regress": (BertForSequenceClassification, {}),
        "multi": (BertForSequenceClassification, {}), "tag": (BertForTokenClassification, {}),
        "qa": (BertForQuestionAnswering, {}), "mlm": (BertForMaskedLM, {}),
    }

    def config(self, case, rng, number):
        head_size = rng.choice([1, 2, 3, 4, 5, 7, 8, 11, 16, 20, 32, 64])
        heads = rng.choice([1, 2, 3, 5, 6, 7, 12])
        while heads * head_size > 400 or heads * head_size < 4:
            heads, head_size = rng.choice([1, 2, 3, 5, 6, 7, 12]), rng.choice([2, 3, 4, 5, 7, 8, 11, 16, 20, 32])
        return BertConfig(
            hidden_size=heads * head_size, num_attention_heads=heads, intermediate_size=rng.randint(3, 300),
            num_hidden_layers=rng.randint(1, 5), vocab_size=rng.randint(40, 700), type_vocab_size=rng.randint(1, 5),
            max_position_embeddings=rng.choice([40, 77, 130]), layer_norm_eps=rng.choice([1e-12, 1e-7, 1e-5, 1e-3]),
            hidden_act=rng.choice(["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]), pad_token_id=0,
            **self.head_fields(case, rng))

    def extra_layouts(self, case):
        return ["legacy"] + (["prefixed"] if case.startswith("base") else [])

    def rename(self, name, case, layout):
        if layout == "legacy":
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return "bert." + name if layout == "prefixed" else name

    def points(self, model):
        body = model.base_model
        named = {f"enc.{i}.resid.out": layer for i, layer in enumerate(body.encoder.layer)}
        named["final"] = body.encoder.layer[-1]
        named["enc.embed.out"] = body.embeddings
        if body.pooler is not None and isinstance(model, BertModel):
            named["head.in"] = body.pooler
        return named

    def lines(self, model, case, rng, generator, _folder, grad, lengths=None):
        config, result = model.config, []
        longest = config.max_position_embeddings
        for length in lengths or [1, 1, 2, 3, rng.randint(4, 20), rng.randint(5, longest), longest]:
            ids = draw(generator, config.vocab_size, length)
            line, arguments, labels = {"input_ids": ids}, {"input_ids": ids_tensor(ids)}, {}
            if rng.random() < 0.7:
                line["token_type_ids"] = draw(generator, config.type_vocab_size, length)
                arguments["token_type_ids"] = ids_tensor(line["token_type_ids"])
            if grad and length > 2:
                self.label(case, config, length, generator, line, labels)
            result.append((line, arguments, labels))
        return result

    def label(self, case, config, length, generator, line, labels):
        if case in ("tag", "mlm"):
            values = draw(generator, config.num_labels if case == "tag" else config.vocab_size, length)
            values[0] = -100
            line["labels"], labels["labels"] = values, ids_tensor(values)
        elif case == "qa":
            line["start_positions"], line["end_positions"] = 1, length - 1
            labels.update(start_positions=torch.tensor([1]), end_positions=torch.tensor([length - 1]))
        elif not case.startswith("base"):
            line["labels"], labels["labels"] = self.class_labels(case, config, generator)


class Llama(Family):
    cases = {
        "lm": (LlamaForCausalLM, {}), "base": (LlamaModel, {}), "lm-tied": (LlamaForCausalLM, {}),
        "classify": (LlamaForSequenceClassification, {}), "regress": (LlamaForSequenceClassification, {}),
        "classify-pad": (LlamaForSequenceClassification, {}), "multi": (LlamaForSequenceClassification, {}),
        "tag": (LlamaForTokenClassification, {}), "qa": (LlamaForQuestionAnswering, {}),
    }
    scalings = ["default", "linear", "dynamic", "llama3", "yarn", "longrope", "old-linear", "old-theta"]

    def config(self, case, rng, number):
        heads, groups = rng.choice([1, 2, 3, 5]), rng.choice([1, 2, 3])
        query_heads = heads * groups
        head_dim = rng.choice([2, 4, 6, 8, 10, 16, 18, 34])
        hidden = query_heads * rng.choice([1, 2, 3, 5, 8])
        shape = dict(
            hidden_size=hidden, num_attention_heads=query_heads, num_key_value_heads=heads, head_dim=head_dim,
            intermediate_size=rng.randint(3, 120), num_hidden_layers=rng.randint(1, 4),
            vocab_size=rng.randint(30, 300), rms_norm_eps=rng.choice([1e-6, 1e-5, 1e-3]),
            max_position_embeddings=rng.choice([24, 40, 77]), hidden_act=rng.choice(["silu", "silu", "gelu", "relu"]),
            attention_bias=rng.random() < 0.4, mlp_bias=rng.random() < 0.4, tie_word_embeddings=case == "lm-tied",
            bos_token_id=1, eos_token_id=2, pad_token_id=None)
        if rng.random() < 0.3:
            del shape["head_dim"]
            shape["hidden_size"] = query_heads * rng.choice([2, 4, 6])
            head_dim = shape["hidden_size"] // query_heads
        if case == "classify-pad":
            shape["pad_token_id"] = 0
        shape.update(self.rope(self.scalings[number % len(self.scalings)], shape, head_dim, rng))
        shape.update(self.head_fields(case, rng))
        return LlamaConfig(**shape)

    def rope(self, scaling, shape, head_dim, rng):
        theta = rng.choice([100.0, 10000.0, 500000.0])
        longest = shape["max_position_embeddings"]
        if scaling == "dynamic" and head_dim == 2:
            scaling = "linear"
        if scaling == "default":
            return dict(rope_parameters=dict(rope_type="default", rope_theta=theta))
        if scaling == "old-theta":
            return dict(rope_theta=theta)
        if scaling == "old-linear":
            return dict(rope_theta=theta, rope_scaling=dict(type="linear", factor=3.0))
        rope = dict(rope_type=scaling, rope_theta=theta, factor=rng.choice([2.0, 4.0, 8.0]))
        if scaling == "llama3":
            rope.update(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=longest // 2)
        if scaling == "yarn":
            rope.update(original_max_position_embeddings=longest // 2, beta_fast=rng.choice([8.0, 32.0]), beta_slow=1.0)
            if rng.random() < 0.5:
                rope.update(rng.choice([dict(attention_factor=1.3), dict(mscale=0.7, mscale_all_dim=1.1),
                                        dict(truncate=False)]))
        if scaling == "longrope":
            rope.update(original_max_position_embeddings=longest // 2,
                        short_factor=[1.0 + 0.1 * i for i in range(head_dim // 2)],
                        long_factor=[2.0 + 0.3 * i for i in range(head_dim // 2)])
            if rng.random() < 0.5:
                del rope["factor"]
        return dict(rope_parameters=rope)

    def extra_layouts(self, case):
        return ["prefixed"] if case == "base" else []

    def rename(self, name, case, layout):
        return "model." + name if layout == "prefixed" else name

    def points(self, model):
        body = model.base_model
        named = {f"dec.{i}.resid.out": layer for i, layer in enumerate(body.layers)}
        return {"dec.embed.out": body.embed_tokens, **named, "final": body.norm}

    def reset(self, model):
        rotary = model.base_model.rotary_emb
        rotary.inv_freq.data = rotary.original_inv_freq.data.clone()
        rotary.max_seq_len_cached = rotary.original_max_seq_len

    def lines(self, model, case, rng, generator, _folder, grad, lengths=None):
        config, result = model.config, []
        longest = config.max_position_embeddings
        for length in lengths or [1, 1, 2, rng.randint(3, longest // 2), longest // 2 + 3, longest, longest + 9]:
            ids = draw(generator, config.vocab_size, length)
            if case == "classify-pad" and length > 4:
                ids[-2:] = [0, 0]
            line, labels = {"input_ids": ids}, {}
            if grad and length > 2:
                self.label(case, config, length, generator, line, labels)
            result.append((line, {"input_ids": ids_tensor(ids)}, labels))
        return result

    def label(self, case, config, length, generator, line, labels):
        if case.startswith("lm"):
            values = draw(generator, config.vocab_size, length)
            values[1] = -100
        elif case == "tag":
            values = draw(generator, config.num_labels, length)
            values[0] = -100
        elif case == "qa":
            line["start_positions"], line["end_positions"] = 1, length - 1
            labels.update(start_positions=torch.tensor([1]), end_positions=torch.tensor([length - 1]))
            return
        elif case == "base":
            return
        else:
            line["labels"], labels["labels"] = self.class_labels(case, config, generator)
            return
        line["labels"], labels["labels"] = values, ids_tensor(values)


class T5(Family):
    cases = {
        "lm": (T5ForConditionalGeneration, {}), "lm-untied": (T5ForConditionalGeneration, {}), "base": (T5Model, {}),
        "encoder": (T5EncoderModel, {}), "classify": (T5ForSequenceClassification, {}),
        "lm-unscaled": (T5ForConditionalGeneration, {}), "tag": (T5ForTokenClassification, {}),
        "qa": (T5ForQuestionAnswering, {}), "regress": (T5ForSequenceClassification, {}),
    }

    def config(self, case, rng, number):
        buckets = rng.choice([8, 12, 32, 33])
        shape = dict(
            d_model=rng.randint(3, 60), d_kv=rng.choice([1, 3, 4, 7, 8, 16, 20]), d_ff=rng.randint(3, 100),
            num_layers=rng.randint(1, 3), num_decoder_layers=rng.randint(1, 3), num_heads=rng.choice([1, 2, 3, 5, 7]),
            relative_attention_num_buckets=buckets, relative_attention_max_distance=buckets + rng.choice([2, 20, 96]),
            vocab_size=rng.randint(30, 200), layer_norm_epsilon=rng.choice([1e-6, 1e-4]),
            feed_forward_proj=["relu", "gated-gelu", "gated-silu", "gelu"][number % 4],
            decoder_start_token_id=rng.choice([0, 3]), classifier_dropout=0.0)
        shape.update(self.head_fields(case, rng))
        if case in ("lm-untied", "lm-unscaled"):
            shape["tie_word_embeddings"] = False
        return T5Config(**shape)

    def deviation(self, name, value, gain, config):
        if ".q." in name:   # scores are not divided by sqrt(d_kv)
            return gain / (value.shape[-1] * config.d_kv) ** 0.5
        return super().deviation(name, value, gain, config)

    def after_lively(self, model, case, rng, generator):
        if case == "lm-untied":
            noise = torch.randn(model.shared.weight.shape, generator=generator)
            model.lm_head.weight = torch.nn.Parameter(noise / model.config.d_model ** 0.5)

    def extra_layouts(self, case):
        return ["encoder-table"] + (["every-table"] if case != "encoder" else [])

    def rewrite(self, path, case, layout):
        tensors = load_file(path)
        name = next((name for name in tensors if name.endswith("shared.weight")), None)
        if layout in ("encoder-table", "every-table") and name is not None:
            prefix = name[:-len("shared.weight")]
            tensors[prefix + "encoder.embed_tokens.weight"] = tensors[name].clone()
            if layout == "every-table":
                tensors[prefix + "decoder.embed_tokens.weight"] = tensors[name].clone()
                if case == "lm":
                    tensors["lm_head.weight"] = tensors[name].clone()
            else:
                del tensors[name]
        save_file(tensors, path, metadata={"format": "pt"})

    def rename(self, name, case, layout):
        if layout == "encoder-table":
            return name.replace("shared.weight", "encoder.embed_tokens.weight")
        return name

    def points(self, model):
        body = model.transformer if hasattr(model, "transformer") else model
        named = {}
        for stack, at in ((getattr(body, "encoder", None), "enc"), (getattr(body, "decoder", None), "dec")):
            if stack is None:
                continue
            named[f"{at}.embed.out"] = stack.embed_tokens
            for i, block in enumerate(stack.block):
                named[f"{at}.{i}.resid.out"] = block
            named["final" if at == "dec" or not hasattr(body, "decoder") else "enc.final"] = stack.final_layer_norm
        return named

    def lines(self, model, case, rng, generator, _folder, grad, lengths=None):
        config, result = model.config, []
        for length in lengths or [1, 2, rng.randint(3, 20), 40, 150]:
            ids = draw(generator, config.vocab_size, length)
            if case in ("classify", "regress"):
                ids[-1] = config.eos_token_id
            line, arguments, labels = {"input_ids": ids}, {"input_ids": ids_tensor(ids)}, {}
            if case == "base" or (case.startswith("lm") and length <= 3):
                words = draw(generator, config.vocab_size, rng.randint(1, 30))
                line["decoder_input_ids"], arguments["decoder_input_ids"] = words, ids_tensor(words)
            elif case.startswith("lm"):
                words = draw(generator, config.vocab_size, rng.randint(3, 25))
                words[1] = -100
                line["labels"], labels["labels"] = words, ids_tensor(words)
            elif grad and length > 2:
                self.label(case, config, length, generator, line, labels)
            result.append((line, arguments, labels))
        return result

    def label(self, case, config, length, generator, line, labels):
        if case == "tag":
            values = draw(generator, config.num_labels, length)
            values[0] = -100
            line["labels"], labels["labels"] = values, ids_tensor(values)
        elif case == "qa":
            line["start_positions"], line["end_positions"] = 1, length - 1
            labels.update(start_positions=torch.tensor([1]), end_positions=torch.tensor([length - 1]))
        elif case in ("classify", "regress"):
            line["labels"], labels["labels"] = self.class_labels(case, config, generator)


class ViT(Family):
    cases = {
        "classify": (ViTForImageClassification, {}), "base": (ViTModel, {}),
        "base-no-pooler": (ViTModel, {"add_pooling_layer": False}), "regress": (ViTForImageClassification, {}),
        "multi": (ViTForImageClassification, {}),
    }
    NEW = [("encoder.layer.", "layers."), ("attention.attention.query", "attention.q_proj"),
           ("attention.attention.key", "attention.k_proj"), ("attention.attention.value", "attention.v_proj"),
           ("attention.output.dense", "attention.o_proj"), ("intermediate.dense", "mlp.fc1"),
           ("output.dense", "mlp.fc2")]

    def config(self, case, rng, number):
        heads = rng.choice([1, 2, 3, 5])
        patch = [rng.randint(1, 4), rng.randint(1, 5)]
        image = [patch[0] * rng.randint(1, 4) + rng.randint(0, patch[0] - 1), patch[1] * rng.randint(1, 3)]
        if number % 3 == 0:
            patch, image = 3, 3 * rng.randint(1, 4)
        return ViTConfig(
            hidden_size=heads * rng.choice([1, 3, 4, 8, 11]), num_attention_heads=heads,
            intermediate_size=rng.randint(3, 100), num_hidden_layers=rng.randint(1, 4), image_size=image,
            patch_size=patch, num_channels=rng.choice([1, 2, 3]), qkv_bias=rng.random() < 0.6,
            hidden_act=rng.choice(["gelu", "gelu_new", "relu"]), layer_norm_eps=rng.choice([1e-12, 1e-6, 1e-3]),
            **({"pooler_output_size": rng.randint(2, 20), "pooler_act": rng.choice(["tanh", "relu"])}
               if number % 2 else {}), **self.head_fields(case, rng))

    def deviation(self, name, value, gain, config):
        if "projection.weight" in name:
            return gain / value[0].numel() ** 0.5
        return super().deviation(name, value, gain, config)

    def extra_layouts(self, case):
        return ["new-names"] + (["prefixed"] if case.startswith("base") else [])

    def file_name(self, name):
        for old, new in reversed(self.NEW):
            if old != "output.dense" or ".attention." not in name:
                name = name.replace(new, old)
        return name

    def rename(self, name, case, layout):
        if layout == "new-names":
            for old, new in self.NEW:
                name = name.replace(old, new)
        return "vit." + name if layout == "prefixed" else name

    def points(self, model):
        body = model.base_model
        named = {f"vis.{i}.resid.out": layer for i, layer in enumerate(body.layers)}
        named.update({"vis.embed.out": body.embeddings, "final": body.layernorm})
        if body.pooler is not None:
            named["head.in"] = body.pooler
        return named

    def lines(self, model, case, rng, generator, folder, grad, lengths=None):
        config, result = model.config, []
        size = config.image_size if isinstance(config.image_size, (list, tuple)) else [config.image_size] * 2
        for i in range(len(lengths or [0, 0, 0])):
            pixels = torch.randn(config.num_channels, *size, generator=generator)
            if i == 1:
                pixels = pixels[None]
            name = f"image{i}.safetensors"
            save_file({"pixel_values": pixels.contiguous()}, os.path.join(folder, name))
            line, labels = {"tensors": name}, {}
            if grad and not case.startswith("base"):
                line["labels"], labels["labels"] = self.class_labels(case, config, generator)
            result.append((line, {"pixel_values": pixels.double().reshape(1, config.num_channels, *size)}, labels))
        return result


FAMILIES = {"bert": Bert(), "llama": Llama(), "t5": T5(), "vit": ViT()}
