"""Distances against closed forms, against astropy, and against each other."""

import math

import numpy as np
import pytest

from galaxies.common import cosmology
from galaxies.common.cosmology import arcsec_per_kpc, comoving_distance, distance_modulus, redshift_at

HUBBLE_DISTANCE = 299_792.458 / 70  # Mpc
REDSHIFTS = np.array([1e-4, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 10.0])


# Known answers


def test_agrees_with_astropy():
    pytest.importorskip("scipy")  # which astropy integrates with
    reference = pytest.importorskip("astropy.cosmology").FlatLambdaCDM(H0=70, Om0=0.3)
    np.testing.assert_allclose(comoving_distance(REDSHIFTS), reference.comoving_distance(REDSHIFTS).value, rtol=1e-8)
    np.testing.assert_allclose(distance_modulus(REDSHIFTS), reference.distmod(REDSHIFTS).value, atol=1e-7)
    expected = reference.arcsec_per_kpc_proper(REDSHIFTS).value
    np.testing.assert_allclose(arcsec_per_kpc(REDSHIFTS), expected, rtol=1e-8)


def test_a_universe_of_matter_alone(monkeypatch):
    monkeypatch.setattr(cosmology, "OMEGA_MATTER", 1.0)
    expected = 2 * HUBBLE_DISTANCE * (1 - 1 / np.sqrt(1 + REDSHIFTS))  # Einstein and de Sitter's
    np.testing.assert_allclose(comoving_distance(REDSHIFTS), expected, rtol=1e-8)


def test_a_universe_without_matter(monkeypatch):
    monkeypatch.setattr(cosmology, "OMEGA_MATTER", 0.0)
    np.testing.assert_allclose(comoving_distance(REDSHIFTS), HUBBLE_DISTANCE * REDSHIFTS, rtol=1e-12)


def test_nearby_it_is_hubbles_law():
    z = np.array([1e-6, 1e-5, 1e-4])
    np.testing.assert_allclose(comoving_distance(z), HUBBLE_DISTANCE * z, rtol=1e-4)
    np.testing.assert_allclose(arcsec_per_kpc(z) * HUBBLE_DISTANCE * 1000 * z, 648_000 / math.pi, rtol=2e-4)
    np.testing.assert_allclose(distance_modulus(z), 5 * np.log10(HUBBLE_DISTANCE * z) + 25, atol=3e-4)


def test_the_modulus_of_ten_parsecs_is_zero():
    assert distance_modulus(10e-6 / HUBBLE_DISTANCE) == pytest.approx(0, abs=1e-6)


def test_angles_are_smallest_near_redshift_1_6():
    z = np.linspace(1.0, 3.0, 401)
    assert z[arcsec_per_kpc(z).argmin()] == pytest.approx(1.605, abs=0.01)


# Identities


def test_the_two_distances_differ_by_the_square_of_one_plus_z():
    luminosity_mpc = 10 ** (distance_modulus(REDSHIFTS) / 5 - 5)
    angular_mpc = 648 / math.pi / arcsec_per_kpc(REDSHIFTS)
    np.testing.assert_allclose(luminosity_mpc / angular_mpc, (1 + REDSHIFTS) ** 2, rtol=1e-10)


def test_redshift_at_inverts_the_modulus():
    z = np.geomspace(1.001e-4, 0.999, 1000)
    assert np.abs(redshift_at(distance_modulus(z)) - z).max() < 1e-6


def test_distance_grows_with_redshift():
    z = np.linspace(0, 3, 1001)
    distance = comoving_distance(z)
    assert distance[0] == 0
    assert (np.diff(distance) > 0).all()
    assert (np.diff(distance, 2) < 0).all()  # ever more slowly than Hubble's law
    assert (np.diff(distance_modulus(z[1:])) > 0).all()
    assert (np.diff(redshift_at(np.linspace(24, 44, 500))) > 0).all()


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
def test_any_shape(shape):
    z = np.full(shape, 0.1)
    for function in (comoving_distance, distance_modulus, arcsec_per_kpc):
        assert function(z).shape == shape
        assert function(z).dtype == np.float64
    assert redshift_at(np.full(shape, 38.0)).shape == shape


def test_float32_and_plain_numbers_are_taken_as_they_are():
    exact = comoving_distance(np.float64(0.125))
    assert comoving_distance(np.float32(0.125)) == exact
    assert comoving_distance(0.125) == exact
