"""Checkpoints: conversion of released weights, loading and saving."""
