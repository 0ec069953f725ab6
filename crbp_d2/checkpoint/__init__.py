"""Checkpoints: conversion of released weights."""
