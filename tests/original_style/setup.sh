#!/usr/bin/env bash

# one environment for the assignment
conda create -n llama_hw python=3.11
conda activate llama_hw

conda install pytorch torchvision torchaudio pytorch-cuda=12.1 -c pytorch -c nvidia
pip install tqdm==4.66.1
pip install requests==2.31.0
pip install importlib-metadata==3.7.0
pip install filelock==3.0.12
pip install scikit-learn==1.2.2
pip install numpy==1.26.3
pip install sentencepiece==0.1.99

# the weights are fetched from the course's page, see the announcement
