from types import SimpleNamespace
import json
import random, argparse
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, DataLoader
from sklearn.metrics import f1_score, accuracy_score

from classifier import LlamaZeroShotClassifier, LlamaEmbeddingClassifier
from llama import Llama, load_pretrained
from optimizer import AdamW
from tokenizer import Tokenizer
from tqdm import tqdm


TQDM_DISABLE = True


# the same random numbers in every run
def seed_everything(seed=1337):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class LlamaDataset(Dataset):
    def __init__(self, dataset, args, eos=False):
        self.dataset = dataset
        self.p = args
        self.tokenizer = Tokenizer(max_len=args.max_sentence_len)
        self.eos = eos

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, idx):
        return self.dataset[idx]

    def pad_data(self, data):
        sents = [x[0] for x in data]
        labels = torch.LongTensor([x[1] for x in data])
        encoding = [self.tokenizer.encode(s, bos=True, eos=self.eos) for s in sents]
        longest = max(len(sentence) for sentence in encoding)
        token_ids = [sentence + [self.tokenizer.pad_id] * (longest - len(sentence)) for sentence in encoding]
        return torch.LongTensor(token_ids), labels, sents

    def collate_fn(self, all_data):
        token_ids, labels, sents = self.pad_data(all_data)
        return {'token_ids': token_ids, 'labels': labels, 'sents': sents}


# one example a line: label ||| sentence
def create_data(filename, flag='train', prompt_suffix=None):
  num_labels = set()
  data = []
  with open(filename, 'r', encoding='utf-8') as fp:
    for line in fp:
      label, sent = line.strip().split(' ||| ', 1)
      if prompt_suffix is not None:
        sent = sent + " " + prompt_suffix
      label = int(label)
      num_labels.add(label)
      data.append((sent, label))
  print(f"read {len(data)} lines of {filename}")
  if flag == 'train':
    return data, len(num_labels)
  return data


# accuracy and F1 on a dev or test set
def model_eval(dataloader, model, device):
    model.eval()
    y_true, y_pred, sents = [], [], []
    for batch in tqdm(dataloader, desc='eval', disable=TQDM_DISABLE):
        b_ids, b_labels = batch['token_ids'].to(device), batch['labels']
        with torch.no_grad():
            scores = model(b_ids)
        y_pred.extend(np.argmax(scores.cpu().numpy(), axis=1).tolist())
        y_true.extend(b_labels.tolist())
        sents.extend(batch['sents'])
    f1 = f1_score(y_true, y_pred, average='macro')
    acc = accuracy_score(y_true, y_pred)
    return acc, f1, y_pred, y_true, sents


def save_model(model, optimizer, args, config, filepath):
    torch.save({
        'model': model.state_dict(),
        'optim': optimizer.state_dict(),
        'args': args,
        'model_config': config,
        'system_rng': random.getstate(),
        'numpy_rng': np.random.get_state(),
        'torch_rng': torch.random.get_rng_state(),
    }, filepath)
    print(f"save the model to {filepath}")


def get_device(args):
    return torch.device('cuda') if args.use_gpu else torch.device('cpu')


def train(args):
    device = get_device(args)
    # data
    train_data, num_labels = create_data(args.train, 'train')
    dev_data = create_data(args.dev, 'valid')
    train_dataset = LlamaDataset(train_data, args)
    dev_dataset = LlamaDataset(dev_data, args)
    train_dataloader = DataLoader(train_dataset, shuffle=True, batch_size=args.batch_size,
                                  collate_fn=train_dataset.collate_fn)
    dev_dataloader = DataLoader(dev_dataset, shuffle=False, batch_size=args.batch_size,
                                collate_fn=dev_dataset.collate_fn)

    # model
    config = SimpleNamespace(
        hidden_dropout_prob=args.hidden_dropout_prob,
        pretrained_model_path=args.pretrained_model_path,
        num_labels=num_labels,
        data_dir='.',
        option=args.option,
    )
    model = LlamaEmbeddingClassifier(config).to(device)
    optimizer = AdamW(model.parameters(), lr=args.lr)
    best_dev_acc = 0

    for epoch in range(args.epochs):
        model.train()
        train_loss, num_batches, right, seen = 0, 0, 0, 0
        for batch in tqdm(train_dataloader, desc=f'train-{epoch}', disable=TQDM_DISABLE):
            b_ids, b_labels = batch['token_ids'].to(device), batch['labels'].to(device)
            optimizer.zero_grad()
            log_probs = model(b_ids)
            loss = F.nll_loss(log_probs, b_labels.view(-1), reduction='sum') / args.batch_size
            loss.backward()
            optimizer.step()
            train_loss += loss.item()
            num_batches += 1
            right += (log_probs.argmax(dim=-1) == b_labels).sum().item()
            seen += len(b_labels)
        train_loss = train_loss / num_batches
        train_acc = right / seen
        dev_acc, dev_f1, *_ = model_eval(dev_dataloader, model, device)
        if dev_acc > best_dev_acc or epoch == 0:
            best_dev_acc = dev_acc
            save_model(model, optimizer, args, config, args.filepath)
        print(f"epoch {epoch}: train loss :: {train_loss :.3f}, train acc :: {train_acc :.3f}, dev acc :: {dev_acc :.3f}")


def generate_sentence(args, prefix, outfile, max_new_tokens = 75, temperature = 0.0):
  with torch.no_grad():
    device = get_device(args)
    llama = load_pretrained(args.pretrained_model_path).to(device)
    llama.eval()
    print(f"load model from {args.pretrained_model_path}")
    enc = Tokenizer(args.max_sentence_len)

    x = torch.tensor(enc.encode(prefix, bos=True, eos=False), dtype=torch.long, device=device)[None, ...]
    y = llama.generate(x, max_new_tokens, temperature=temperature)
    sentence = enc.decode(y[0].tolist())
    print(f"Temperature is {temperature}")
    print(sentence)
    print('---------------')
    with open(outfile, "w", encoding='utf-8') as writer:
      writer.write(sentence)
    print(f"Wrote generated sentence to {outfile}.")


def write_predictions_to_file(split, outfile, acc, pred, sents):
  with open(outfile, "w+", encoding='utf-8') as f:
    print(f"{split} acc :: {acc :.3f}")
    for p, s in zip(pred, sents):
      f.write(f"{p} ||| {s}\n")


def test_with_prompting(args):
    assert args.dev_out.endswith("dev-prompting-output.txt"), \
        'name the output of prompting on dev ...dev-prompting-output.txt'
    assert args.test_out.endswith("test-prompting-output.txt"), \
        'name the output of prompting on test ...test-prompting-output.txt'

    with torch.no_grad():
        device = get_device(args)
        with open(args.label_names, encoding='utf-8') as f:
            label_names = json.load(f)
        config = SimpleNamespace(
            pretrained_model_path=args.pretrained_model_path,
            num_labels=len(label_names),
            label_names=label_names,
            data_dir='.',
            option=args.option,
        )
        model = LlamaZeroShotClassifier(config, Tokenizer(args.max_sentence_len), label_names).to(device)
        model.eval()

        if len(label_names) == 2:
            choices = " or ".join(label_names)
        else:
            choices = ", ".join(label_names[:-1]) + ", or " + label_names[-1]
        prompt_suffix = f"Is this movie {choices}? This movie is "

        for split, file, outfile in (('dev', args.dev, args.dev_out), ('test', args.test, args.test_out)):
            dataset = LlamaDataset(create_data(file, 'valid', prompt_suffix=prompt_suffix), args)
            loader = DataLoader(dataset, shuffle=False, batch_size=args.batch_size, collate_fn=dataset.collate_fn)
            acc, f1, pred, true, sents = model_eval(loader, model, device)
            write_predictions_to_file(split, outfile, acc, pred, sents)


def test(args):
    assert args.dev_out.endswith("dev-finetuning-output.txt"), \
        'name the output of finetuning on dev ...dev-finetuning-output.txt'
    assert args.test_out.endswith("test-finetuning-output.txt"), \
        'name the output of finetuning on test ...test-finetuning-output.txt'

    with torch.no_grad():
        device = get_device(args)
        saved = torch.load(args.filepath, weights_only=False)
        model = LlamaEmbeddingClassifier(saved['model_config'])
        model.load_state_dict(saved['model'])
        model = model.to(device)
        print(f"load model from {args.filepath}")

        for split, file, outfile in (('dev', args.dev, args.dev_out), ('test', args.test, args.test_out)):
            dataset = LlamaDataset(create_data(file, 'valid'), args)
            loader = DataLoader(dataset, shuffle=False, batch_size=args.batch_size, collate_fn=dataset.collate_fn)
            acc, f1, pred, true, sents = model_eval(loader, model, device)
            write_predictions_to_file(split, outfile, acc, pred, sents)


def get_args():
  parser = argparse.ArgumentParser()
  parser.add_argument("--train", type=str, default="data/cfimdb-train.txt")
  parser.add_argument("--dev", type=str, default="data/cfimdb-dev.txt")
  parser.add_argument("--test", type=str, default="data/cfimdb-test.txt")
  parser.add_argument("--label-names", type=str, default="data/cfimdb-label-mapping.json")
  parser.add_argument("--pretrained-model-path", type=str, default="stories42M.pt")
  parser.add_argument("--max_sentence_len", type=int, default=None)
  parser.add_argument("--seed", type=int, default=1337)
  parser.add_argument("--epochs", type=int, default=5)
  parser.add_argument("--option", type=str, default="generate", choices=('generate', 'prompt', 'finetune'),
                      help='prompt: the Llama is not changed; finetune: it is trained too')
  parser.add_argument("--use_gpu", action='store_true')
  parser.add_argument("--generated_sentence_low_temp_out", type=str, default="generated-sentence-temp-0.txt")
  parser.add_argument("--generated_sentence_high_temp_out", type=str, default="generated-sentence-temp-1.txt")
  parser.add_argument("--dev_out", type=str, default="cfimdb-dev-prompting-output.txt")
  parser.add_argument("--test_out", type=str, default="cfimdb-test-prompting-output.txt")

  # hyper parameters
  parser.add_argument("--batch_size", type=int, default=8, help='80 for sst and 10 for cfimdb fit a GPU of 12 GB')
  parser.add_argument("--hidden_dropout_prob", type=float, default=0.3)
  parser.add_argument("--lr", type=float, default=2e-5)

  args = parser.parse_args()
  print(f"args: {vars(args)}")
  return args


if __name__ == "__main__":
    args = get_args()
    args.filepath = f'{args.option}-{args.epochs}-{args.lr}.pt'  # where the model is saved
    seed_everything(args.seed)

    if args.option == "generate":
        # The beginning of a review, for the model to go on with
        prefix = "I have wanted to see this thriller for a while, and it didn't disappoint. Keanu Reeves, playing the hero John Wick, is"
        generate_sentence(args, prefix, args.generated_sentence_low_temp_out, max_new_tokens=75, temperature=0.0)
        generate_sentence(args, prefix, args.generated_sentence_high_temp_out, max_new_tokens=75, temperature=1.0)
    elif args.option == "prompt":
        # zero-shot
        test_with_prompting(args)
    elif args.option == "finetune":
        train(args)
        # the best epoch on dev and test
        test(args)
    else:
        raise ValueError(f"Invalid option: {args.option}")
