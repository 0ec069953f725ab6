"""Images and videos in, drawn predictions and their files out.

H x W: image size.
"""

import contextlib
import logging
from collections.abc import Generator, Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.data import detection_utils as utils
from PIL import Image
from torch import nn
from tqdm import tqdm

from crbp_d2.data.images import decoding, read_image
from crbp_d2.evaluation.drawing import draw_prediction, resize, side_by_side
from crbp_d2.evaluation.pathfinder import overlay
from crbp_d2.evaluation.per_step.settling import image_map, recorded_settling
from crbp_d2.modeling.heads import recurrent_heads
from crbp_d2.utils.files import write_atomically

from .files import IMAGES, INSTANCES, PANOPTIC, SEMANTIC, PredictionFiles, unused
from .predictor import Predictor, carried_states

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def find_inputs(paths: Sequence[str]) -> list[tuple[Path, str]]:
    """Images and videos at the paths, folders opened (not those inside), each with a unique name for its output.

    Raises:
        FileNotFoundError: a path that does not exist, or a folder without an image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in (*PICTURES, *VIDEOS))
            if not inside:
                raise FileNotFoundError(f"the folder {path} holds no picture or video")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"there is no file or folder {path}")
    named: dict[str, Path] = {}
    stems = {path.stem for path in found}
    for path in found:
        name = path.stem if path.stem not in named else unused(path.stem, stems | named.keys())
        named[name] = path
    return [(path, name) for name, path in named.items()]


def output_folder(path: str, inputs: Sequence[tuple[Path, str]], json: bool = False, image_info: str = "") -> Path:
    """The folder at `path` for the outputs of find_inputs, created if missing.

    Args:
        json, image_info: see Predictions.

    Raises:
        OSError: `path` is a file, or the folder cannot be created.
        ValueError: an output would overwrite an input.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--output {path} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    written = {(folder / output_name(source, name)).resolve() for source, name in inputs}
    if json:
        written |= {(folder / name).resolve() for name in (IMAGES, INSTANCES, f"{PANOPTIC}.json", PANOPTIC, SEMANTIC)}
    for source in (*(source for source, _ in inputs), *([Path(image_info)] if image_info else [])):
        if written & {source.resolve(), source.resolve().parent}:
            raise ValueError(f"--output {path} would overwrite the input {source}; choose another folder")
    return folder


def output_name(source: Path, name: str) -> str:
    """The file name of the drawn prediction for an input of find_inputs."""
    return f"{name}.mp4" if is_video(source) else f"{name}.png"


def is_video(path: Path) -> bool:
    """True for the suffixes of videos."""
    return path.suffix.lower() in VIDEOS


class Predictions:
    """Writes the picture `folder`/NAME.png of each input (a video: NAME.mp4), and with `json` files of results.

    Args:
        cfg, model, metadata: see load_run.
        folder: an existing folder for all outputs.
        steps: cell evaluations to show side by side; none: the run's own number.
        score: minimum score of an instance that is drawn, where the model gives no panoptic segments.
        settling: show the steps until each pixel settles, too.
        json, image_info: see PredictionFiles.
        carry_state: start each image or frame from the state of the one before, at each step count from its own; a
            video begins anew.

    Raises:
        ValueError: step counts, settling or a carried state of a model without a recurrent head that has them.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, metadata: Metadata, folder: str, *, steps: Sequence[int] = (),
                 score: float = 0.5, settling: bool = False, json: bool = False, image_info: str = "",
                 carry_state: bool = False):  # fmt: skip
        if (steps or settling) and not recurrent_heads(model):
            raise ValueError("--steps and --settling need a model with a recurrent head, which this run has not")
        self.predictor = Predictor(cfg, model)
        self.carry_state = carry_state
        with self.carried():
            pass
        self.metadata = metadata
        self.folder = Path(folder)
        self.steps = list(steps)
        self.score = score
        self.settling = settling
        self.files = PredictionFiles(folder, metadata, image_info) if json else None

    def carried(self, track: int | str | None = None) -> contextlib.AbstractContextManager:
        """A new context in which states are carried, if they are to be; see carried_states."""
        return carried_states(self.predictor.model, track) if self.carry_state else contextlib.nullcontext()

    def run(self, inputs: Sequence[tuple[Path, str]]) -> list[str]:
        """Predict on every input of find_inputs; returns a sentence for each that could not be used."""
        failures = []
        with self.carried():
            for path, name in tqdm(inputs, desc="predicting", disable=len(inputs) < 2):
                try:
                    if self.files:
                        self.files.image_id(str(path))
                    self._video(path, name) if is_video(path) else self._picture(path, name)
                except (OSError, ValueError) as error:
                    failures.append(" ".join(str(error).split()))
        if self.files:
            self.files.write()
        return failures

    def _picture(self, path: Path, name: str) -> None:
        with decoding(str(path)) as (_, header):
            width, height = header.shown
        image = read_image(str(path), self.predictor.format, width, height)
        drawn, output = self.predict(image)
        content = cv2.imencode(".png", drawn[..., ::-1])[1].tobytes()
        write_atomically(self.folder / output_name(path, name), lambda file: file.write(content))
        if self.files:
            self.files.add(str(path), name, output, image.shape[:2])

    def predict(self, image: np.ndarray) -> tuple[np.ndarray, dict]:
        """The drawn panels, RGB, and the output at the last step count, of an image in the predictor's format."""
        shown = utils.convert_image_to_rgb(image.reshape(*image.shape[:2], -1), self.predictor.format)
        panels, settled = {"input": resize(shown)}, {}
        for t in self.steps or [None]:
            with self.carried(t or "own"), contextlib.ExitStack() as stack:
                watched = self.settling and t == max(self.steps, default=None)
                maps = stack.enter_context(recorded_settling(self.predictor.model)) if watched else []
                output = self.predictor(image, t)
            panels["prediction" if t is None else f"t = {t}"] = self._draw(shown, output)
            if watched:
                size = self.predictor.inputs(image)[0]["image"].shape[-2:]
                settled = settling_panel(image_map(output, maps, size), panels["input"].shape[1::-1])
        return side_by_side({**panels, **settled}), output

    def _draw(self, image: np.ndarray, output: dict) -> np.ndarray:
        if self.predictor.contours:
            return resize(overlay(image, output["sem_seg"]))
        return draw_prediction(image, output, self.metadata, self.score)

    def _video(self, path: Path, name: str) -> None:
        frames, rate, count = read_video(path)
        target = self.folder / output_name(path, name)
        writer: cv2.VideoWriter | None = None
        number = 0
        with self.carried(), contextlib.closing(frames):
            try:
                for number, frame in enumerate(tqdm(frames, desc=path.name, total=count), start=1):
                    image = utils.convert_PIL_to_numpy(Image.fromarray(frame[..., ::-1]), self.predictor.format)
                    drawn, output = self.predict(image)
                    if writer is None:
                        size = drawn.shape[1] // 2 * 2, drawn.shape[0] // 2 * 2
                        writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
                        if not writer.isOpened():
                            raise ValueError(f"{target} cannot be written: this OpenCV has no encoder for mp4")
                    writer.write(np.ascontiguousarray(drawn[: size[1], : size[0], ::-1]))
                    if self.files:
                        self.files.add(f"{path}#{number}", f"{name}_{number:06d}", output, image.shape[:2])
            finally:
                if writer is not None:
                    writer.release()
        if writer is None:
            raise ValueError(f"{path} holds no frame that can be read")
        # Containers without an index estimate the count: a single frame does not tell.
        if count and number < count - 1:
            logging.getLogger(__name__).warning("%s ends after %d of its %d frames; is it cut?", path, number, count)


def read_video(path: Path) -> tuple[Generator[np.ndarray, None, None], float, int | None]:
    """Frames of a video, H x W x 3 BGR, their number per second, and their count if the header has it.

    Raises:
        ValueError: a file that OpenCV cannot read as a video.
    """
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"{path} is no video that OpenCV reads; give its frames as a folder of pictures")

    def frames() -> Generator[np.ndarray, None, None]:
        try:
            while True:
                read, frame = video.read()
                if not read:
                    return
                yield frame
        finally:
            video.release()

    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    return frames(), video.get(cv2.CAP_PROP_FPS) or 25.0, count if count > 0 else None


def settling_panel(steps: np.ndarray | None, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """A map of steps as a panel of this size (width, height), its title with the range; white where it is NaN."""
    if steps is None or not np.isfinite(steps).any():
        return {"settling: no recurrent region": np.full((size[1], size[0], 3), 255, np.uint8)}
    known = np.isfinite(steps)
    low, high = steps[known].min(), steps[known].max()
    scaled = np.where(known, (steps - low) / max(high - low, 1), 0)
    colored = cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1].copy()
    colored[~known] = 255
    title = f"settled after {low:.0f} (dark) to {high:.0f} (bright) steps"
    return {title: cv2.resize(colored, size, interpolation=cv2.INTER_NEAREST)}
